#!/bin/sh
# Makes the shipped checkpoint: sh recipes/default_checkpoint/make.sh DATA OUT
#
# DATA has grocery/ (labels.csv, images/) and domains/{caltech101,clothing,euro_coins}/; OUT gets the
# descriptors and relations-{0,1,2}.safetensors, of which relations-0 is shipped. Descriptors that
# are there are kept. They take an hour on two cores; the training wants a GPU and 16 cores.
set -eu
data=$(realpath "$1") out=$2
locore=${LOCORE:-.venv/bin/locore} python=${PYTHON:-.venv/bin/python}
mkdir -p "$out"

# DOMAIN FOLDER PATHS_RELATIVE_TO
described() {
    for extractor in efficientnet-lite0 sift; do
        "$locore" extract "$2/images" --relative-to "$3" --extractor $extractor \
            -o "$out/$1-$extractor.h5"
        "$locore" extract "$out/views/$1" --relative-to "$out/views/$1" --extractor $extractor \
            --views 4 -o "$out/$1-views-$extractor.h5"
    done
}

# DOMAIN FOLDER PATHS_RELATIVE_TO: links to 240 random images, of which views are described.
chosen_for_views() {
    python3 - "$2/labels.csv" "$3" "$out/views/$1" <<'PYTHON'
import csv, os, random, sys

labels, base, folder = sys.argv[1:]
with open(labels, newline="") as file:
    paths = [row["path"] for row in csv.DictReader(file) if row.get("source_split", "train") == "train"]
random.Random(0).shuffle(paths)
for path in paths[:240]:
    link = os.path.join(folder, path)
    os.makedirs(os.path.dirname(link), exist_ok=True)
    if not os.path.islink(link):
        os.symlink(os.path.join(base, path), link)
PYTHON
}

chosen_for_views grocery "$data/grocery" "$data/grocery/images"
described grocery "$data/grocery" "$data/grocery/images"
set -- --data "$data/grocery"
for domain in caltech101 clothing euro_coins; do
    chosen_for_views $domain "$data/domains/$domain" "$data/domains/$domain"
    described $domain "$data/domains/$domain" "$data/domains/$domain"
    set -- "$@" --data "$data/domains/$domain"
done
for file in "$out"/*-efficientnet-lite0.h5 "$out"/*-sift.h5; do
    case $file in
        *-views-*) set -- "$@" --views "$file" ;;
        *) set -- "$@" --descriptors "$file" ;;
    esac
done
"$python" "$(dirname "$0")/train.py" "$@" -o "$out"
