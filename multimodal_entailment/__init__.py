"""Multimodal entailment: does a post (text and image) follow from another one, contradict it, or neither?"""
