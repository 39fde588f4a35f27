"""Tasks on text: what their models are made of, vocabularies, corpora, decoding."""
