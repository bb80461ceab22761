"""Few-shot classification of images: what all image task sets share, and one file for each set.

`published/` holds the class splits of the literature as JSON.
"""
