"""The re-ranker: descriptors in, scores out. It knows nothing of HTTP or Redis.

Shapes have the same letters everywhere: w windows; i images of a window, the query first; g = i - 1
gallery images; n locals of an image; m locals of the query; d numbers of a local; e numbers of a
global; s slots (tokens of an image, padded); t matches that become tokens; r relations between
images; f features; p pairs of images; b images of a batch that is extracted. `scan` alone has the
letters of Mamba-2.
"""
