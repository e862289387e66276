"""The measured AP of the default network on the 24 validation images of data/coco_mini, without the flip test.

`make quickstart` and tests/evaluation/test_golden_accuracy.py compare with it. After a change of the default network,
copy the AP that `python -m tools.lab.quickstart` prints.
"""

TOLERANCE = 0.02
"""The largest difference of AP that other versions of libraries and other processors may cause."""
EXPECTED_AP = {"gt": 0.569, "detections": 0.558, "detector": 0.563}
"""AP by the source of the boxes: the ground truth; annotations/person_detections_val2017.json; the detector in the
package. Detections have scores from 0.3."""
