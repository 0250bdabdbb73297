"""Recordings and films: samples, frames, and what is said in them.

    read_recording    a sound as one channel of samples, block by block
    FrameReader       a few frames of a film, evenly spread over its length
    SpeechModel       words with the seconds in which each is said

PyAV (ffmpeg) decodes, with formats and codecs limited and memory reserved before it is taken.
"""
