"""Recordings, films and subtitles: what is said, what is heard, what is seen, and when.

A guest of this package: no module outside imports it, and without this folder and its line in `paddle_ranker.recipes`
everything else works. It plugs in by `contents.py` and `kind.py`:

    FIELD_TYPES    recording, film, subtitles: what such files are, and which tower embeds them
    READERS        speech, film, subtitles: a file's parts, with the seconds of each line or piece
    FAMILIES       wav2vec2, hubert: networks of samples
    FILE_INPUTS    sound: towers of such networks, and their published models

Words come from `speech.py`, by Whisper or by a `Transcriber` of letters, and from `subtitles.py`. Vectors come from
`towers.py`: `SoundTower` reads the seconds of a part, `FilmTower` a frame of them. PyAV (ffmpeg) decodes, with limited
formats (`media.py`) and codecs (`audio.py`).
"""
