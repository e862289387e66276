"""Evaluation: OKS, suppression, rescoring, COCO's numbers, and testing a network."""
