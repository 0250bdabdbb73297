"""Pictures: searched by texts and by pictures, compared with texts, and ranked by what they show.

A guest of this package: no other module of it imports this room, and without this folder and its line in
`paddle_ranker.recipes` everything else works. It plugs in by `contents.py` and `kind.py`:

    FIELD_TYPES    picture: what such files are, and which tower embeds them
    FAMILIES       vilt, and networks of towers: vit, CLIP's, SigLIP's, convolutions
    FILE_INPUTS    picture: towers of such networks, their published models (CLIP, Chinese CLIP, SigLIP, ViT), and
                   networks from nothing for `paddle-ranker starter --picture_size`

A tower reads a picture as pixels: `PictureEncoder` scales it as transformers does, and the network of
`picture_networks.py` normalises the pixels. `picture_models.py` converts published models to towers and back. A ranker
of pictures is a ViLT (`vilt.py`): `PicturePairEncoder` makes a `PictureTitle` of a file, and its patches are tokens.
Trainings of towers may freeze a network and keep its states (`frozen.py`).

Indexes and servers know these encoders as `FileEncoder` and `FilePairEncoder` alone; `FileTower` (`retrieval/vectors/`)
embeds the files of a field. All pictures are
decoded by `data/files/pictures.py`, as scans are: within limits, and with memory reserved before it is taken. Pixels
and vectors equal those of transformers, which `tests/pictures/` compares.
"""
