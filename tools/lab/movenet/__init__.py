"""Google's MoveNet (SinglePose Lightning and Thunder, v4) as PyTorch modules, as starting weights and as a teacher."""
