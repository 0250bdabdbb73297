"""Which characters are letters, marks, punctuation: by one version of Unicode, whatever version Python has."""
