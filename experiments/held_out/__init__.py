"""How good is the embedded prior on objects that no training saw?"""
