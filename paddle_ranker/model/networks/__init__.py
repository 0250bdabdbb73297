"""Networks of families that differ from BERT in most parts, one file each."""
