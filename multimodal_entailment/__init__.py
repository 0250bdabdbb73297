"""Multimodal entailment: does a post (text and image) follow from another post, contradict it, or neither?"""
