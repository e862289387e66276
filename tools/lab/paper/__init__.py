"""Comparison of #Param and MAdds with the paper."""
