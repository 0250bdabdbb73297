"""Multimodal entailment: does a post (text and image) follow from another post, contradict it, or neither?"""

KIND = "entailment"  # name of the kind of model
