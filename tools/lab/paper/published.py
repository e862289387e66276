"""Values printed in the paper: #Param and MAdds (Tables 1, 8 and 10), AP (Tables 10 and 11).

Source: Chen et al., Dynamic Convolution: Attention over Convolution Kernels, CVPR 2020. Values that
differ from our count by more than 1 % have a reason, if one is known.
"""

from dataclasses import asdict, dataclass

_UNITS = {"M": 6, "G": 9}


@dataclass(frozen=True)
class Printed:
    """A printed value.

    Attributes:
        text: digits and unit, such as "312.9M".
        reason: explanation of a difference of more than 1 % from our count; None if there is no such difference.
    """

    text: str
    reason: str | None = None

    @property
    def value(self) -> float:
        """The value as a number."""
        return float(f"{self.text[:-1]}e{_UNITS[self.text[-1]]}")

    def matches(self, count: int) -> bool:
        """Returns whether a count equals the value after rounding to its digits."""
        decimals = len(self.text[:-1].partition(".")[2])
        return f"{count / 10 ** _UNITS[self.text[-1]]:.{decimals}f}" == self.text[:-1]


@dataclass(frozen=True)
class PrintedComplexity:
    """Printed #Param and MAdds; None if the paper has none."""

    parameters: Printed | None = None
    madds: Printed | None = None


@dataclass(frozen=True)
class PrintedAP:
    """COCO metrics of a network in percent; Table 11 has only the first three. See `AP_PROTOCOL`."""

    AP: float
    AP50: float
    AP75: float
    APm: float | None = None
    APl: float | None = None
    AR: float | None = None

    def to_json(self) -> dict[str, float]:
        """Returns the metrics that the paper has."""
        return {name: value for name, value in asdict(self).items() if value is not None}


AP_PROTOCOL = "COCO val2017, crops of 256x192 (height x width), a person detector's boxes, flip test, no pretraining"

_V2_MADDS = (
    "Our count follows section 3.2, without the biases that our layers do not have. The paper's value equals, within "
    "0.2 %, the static network plus one pooling per block (of the depthwise convolution), without aggregation of "
    "depthwise kernels: a rule fitted to the digits, not stated in the paper."
)
_V2_PARAMETERS = (
    "Unexplained. No rounding of the widths and no choice of biases and norms was found that gives both this value and "
    "the cost of the static network."
)
_V3_MADDS = (
    "Our count follows section 3.2, without the biases that our layers do not have. The paper's value follows from its "
    "static network if only the first attention layer of depthwise convolutions is counted, without pooling and "
    "aggregation: a rule fitted to the digits, not stated in the paper."
)
_V3_PARAMETERS = (
    "The value of the MobileNetV3 paper, which corresponds to a network without squeeze-and-excitation on the last "
    "convolution. The backbone in Table 10 (1.1M) and ours have it."
)
_RESNET_PARAMETERS = "The paper counts ResNets in units of 2^20, and in Table 10 only the weights of convolutions."
_DY_RESNET_PARAMETERS = "The paper counts ResNets in units of 2^20 without the 1x1 convolutions of the shortcuts."
_BNECK_MADDS = (
    "The paper's value follows in units of 2^20 with one more operation per output of a ReLU and of the last bias and "
    "four per output of an upsampling: a rule fitted to the digits, not stated in the paper."
)
_DY_BNECK_MADDS = (
    "As for the static head; of depthwise convolutions' attention only the first layer is counted, without pooling and "
    "aggregation."
)
_DECONV = (
    "Unexplained. The paper has one value for inputs of 512, 576 and 1280 channels, which cannot be correct for all; "
    "ours is for three 4x4 deconvolutions of 256 channels and a 1x1 convolution."
)

TABLE_1: dict[tuple[str, int], Printed] = {
    ("mobilenetv2_100", 1): Printed("300.0M"),
    ("dy_mobilenetv2_100", 2): Printed("309.5M", _V2_MADDS),
    ("dy_mobilenetv2_100", 4): Printed("312.9M", _V2_MADDS),
    ("dy_mobilenetv2_100", 6): Printed("316.3M", _V2_MADDS),
    ("dy_mobilenetv2_100", 8): Printed("319.8M", _V2_MADDS),
    ("mobilenetv2_075", 1): Printed("209.0M"),
    ("dy_mobilenetv2_075", 2): Printed("215.6M", _V2_MADDS),
    ("dy_mobilenetv2_075", 4): Printed("217.5M", _V2_MADDS),
    ("dy_mobilenetv2_075", 6): Printed("219.5M", _V2_MADDS),
    ("dy_mobilenetv2_075", 8): Printed("221.4M", _V2_MADDS),
    ("mobilenetv2_050", 1): Printed("97.0M"),
    ("dy_mobilenetv2_050", 2): Printed("100.5M", _V2_MADDS),
    ("dy_mobilenetv2_050", 4): Printed("101.4M", _V2_MADDS),
    ("dy_mobilenetv2_050", 6): Printed("102.3M", _V2_MADDS),
    ("dy_mobilenetv2_050", 8): Printed("103.2M", _V2_MADDS),
    ("mobilenetv2_035", 1): Printed("59.2M"),
    ("dy_mobilenetv2_035", 2): Printed("61.5M", _V2_MADDS),
    ("dy_mobilenetv2_035", 4): Printed("62.0M", _V2_MADDS),
    ("dy_mobilenetv2_035", 6): Printed("62.5M", _V2_MADDS),
    ("dy_mobilenetv2_035", 8): Printed("62.9M", _V2_MADDS),
}
"""MAdds on ImageNet (224x224, 1000 classes) by backbone and number of kernels K; static networks have K = 1."""

TABLE_8: dict[str, PrintedComplexity] = {
    "mobilenetv2_100": PrintedComplexity(Printed("3.5M"), Printed("300.0M")),
    "dy_mobilenetv2_100": PrintedComplexity(Printed("11.1M"), Printed("312.9M", _V2_MADDS)),
    "mobilenetv2_075": PrintedComplexity(Printed("2.6M"), Printed("209.0M")),
    "dy_mobilenetv2_075": PrintedComplexity(Printed("7.0M"), Printed("217.5M", _V2_MADDS)),
    "mobilenetv2_050": PrintedComplexity(Printed("2.0M"), Printed("97.0M")),
    "dy_mobilenetv2_050": PrintedComplexity(Printed("4.0M", _V2_PARAMETERS), Printed("101.4M", _V2_MADDS)),
    "mobilenetv2_035": PrintedComplexity(Printed("1.7M"), Printed("59.2M")),
    "dy_mobilenetv2_035": PrintedComplexity(Printed("2.8M", _V2_PARAMETERS), Printed("62.0M", _V2_MADDS)),
    "mobilenetv3_small": PrintedComplexity(Printed("2.9M", _V3_PARAMETERS), Printed("66.0M")),
    "dy_mobilenetv3_small": PrintedComplexity(Printed("4.8M"), Printed("68.5M", _V3_MADDS)),
    "resnet18": PrintedComplexity(Printed("11.1M", _RESNET_PARAMETERS), Printed("1.81G")),
    "dy_resnet18": PrintedComplexity(Printed("42.7M", _DY_RESNET_PARAMETERS), Printed("1.85G")),
    "resnet10": PrintedComplexity(Printed("5.2M", _RESNET_PARAMETERS), Printed("0.89G")),
    "dy_resnet10": PrintedComplexity(Printed("18.6M", _DY_RESNET_PARAMETERS), Printed("0.91G")),
}
"""ImageNet networks (224x224, 1000 classes, K = 4) by backbone."""

TABLE_10_BACKBONES: dict[str, PrintedComplexity] = {
    "resnet18": PrintedComplexity(Printed("10.6M", _RESNET_PARAMETERS), Printed("1.77G")),
    "dy_resnet18": PrintedComplexity(Printed("42.2M", _DY_RESNET_PARAMETERS), Printed("1.81G")),
    "mobilenetv2_100": PrintedComplexity(Printed("2.2M"), Printed("292.6M")),
    "dy_mobilenetv2_100": PrintedComplexity(Printed("9.8M"), Printed("305.3M", _V2_MADDS)),
    "mobilenetv2_050": PrintedComplexity(Printed("0.7M"), Printed("93.7M")),
    "dy_mobilenetv2_050": PrintedComplexity(Printed("2.7M"), Printed("98.0M", _V2_MADDS)),
    "mobilenetv3_small": PrintedComplexity(Printed("1.1M"), Printed("62.7M")),
    "dy_mobilenetv3_small": PrintedComplexity(Printed("2.8M"), Printed("65.1M", _V3_MADDS)),
}
"""Backbones of the pose networks (256x192, K = 4) by name."""

_DECONV_HEAD = PrintedComplexity(Printed("8.4M", _DECONV), Printed("5.4G", _DECONV))
TABLE_10_HEADS: dict[tuple[str, int], PrintedComplexity] = {
    ("deconv", 512): _DECONV_HEAD,
    ("deconv", 1280): _DECONV_HEAD,
    ("deconv", 576): _DECONV_HEAD,
    ("bneck", 1280): PrintedComplexity(Printed("1.2M"), Printed("701.1M", _BNECK_MADDS)),
    ("dy_bneck", 1280): PrintedComplexity(Printed("6.3M"), Printed("709.4M", _DY_BNECK_MADDS)),
    ("bneck", 576): PrintedComplexity(Printed("1.0M"), Printed("664.2M", _BNECK_MADDS)),
    ("dy_bneck", 576): PrintedComplexity(Printed("4.9M"), Printed("671.1M", _DY_BNECK_MADDS)),
}
"""Heads of the pose networks (256x192, K = 4) by name and channels of the backbone's output."""

PUBLISHED_AP: dict[str, PrintedAP] = {
    "resnet18-deconv": PrintedAP(67.0, 87.9, 74.8, 63.6, 73.5, 73.1),
    "dy_resnet18-deconv": PrintedAP(68.6, 88.4, 76.1, 65.3, 75.1, 74.6),
    "mobilenetv2_100-deconv": PrintedAP(64.7, 87.2, 72.6, 61.3, 71.0, 71.0),
    "dy_mobilenetv2_100-deconv": PrintedAP(67.6, 88.1, 75.5, 64.4, 74.1, 73.8),
    "mobilenetv2_050-deconv": PrintedAP(57.0, 83.7, 63.1, 53.9, 63.1, 63.7),
    "dy_mobilenetv2_050-deconv": PrintedAP(61.9, 85.8, 69.7, 58.9, 67.9, 68.4),
    "mobilenetv3_small-deconv": PrintedAP(57.1, 83.7, 63.8, 54.9, 62.3, 64.1),
    "dy_mobilenetv3_small-deconv": PrintedAP(59.3, 84.7, 66.7, 56.9, 64.7, 66.1),
    "mobilenetv2_100-bneck": PrintedAP(64.6, 87.0, 72.4, 61.3, 71.0, 71.0),
    "dy_mobilenetv2_100-dy_bneck": PrintedAP(68.2, 88.4, 76.0, 65.0, 74.7, 74.2),
    "mobilenetv2_050-bneck": PrintedAP(59.2, 84.3, 66.4, 56.2, 65.0, 65.6),
    "mobilenetv2_050-dy_bneck": PrintedAP(60.3, 84.9, 67.3),
    "dy_mobilenetv2_050-bneck": PrintedAP(62.3, 85.6, 70.0),
    "dy_mobilenetv2_050-dy_bneck": PrintedAP(62.8, 86.1, 70.4, 59.9, 68.6, 69.1),
    "mobilenetv3_small-bneck": PrintedAP(57.1, 83.8, 63.7, 55.0, 62.2, 64.1),
    "dy_mobilenetv3_small-dy_bneck": PrintedAP(60.0, 85.0, 67.8, 57.6, 65.4, 66.7),
}
"""AP of the pose networks by name: Table 10, and Table 11 for networks with a dynamic backbone or head only."""
