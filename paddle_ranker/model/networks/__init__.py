"""Networks of other families of encoders than BERT's, one file each; `paddle_ranker.model.families` names them."""
