#!/bin/sh
# Makes the shipped checkpoint: sh recipes/default_checkpoint.sh DATA OUT [SEED]
#
# DATA has grocery/ (labels.csv, images/) and domains/{caltech101,clothing,euro_coins}/; OUT gets the
# descriptors, the training's log and state, and relations.safetensors. What is there is kept, so a
# run that was stopped goes on. About an hour and a half on two cores, an hour of it for descriptors.
set -eu
data=$(realpath "$1") out=$2 seed=${3:-0}
locore=${LOCORE:-.venv/bin/locore}
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
resume=
[ -f "$out/relations.run/state.pt" ] && resume=--resume
OMP_NUM_THREADS=1 "$locore" train "$@" --fold 0 --steps 6000 --seed "$seed" $resume -o "$out/relations.safetensors"
