"""Google's MoveNet (SinglePose Lightning and Thunder, v4) in PyTorch: pretrained weights and a teacher."""
