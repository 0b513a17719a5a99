"""What a core can carry: figures of this pipeline and of its peers, in the same run, on the same data."""
