#!/usr/bin/env bash
# Writes a C file that holds text files as byte arrays: embed.sh FILE.yaml... > h5_schema_text.c
# (Arrays, since ISO C promises no string literal of more than 4095 characters.)
set -euo pipefail
echo '/* Made by hdf5_schemas/embed.sh. */'
echo '#include "h5/h5_schema.h"'
for file in "$@"; do
    name=$(basename "$file" .yaml)
    echo "static const char text_$name[] = {"
    od -An -v -tx1 "$file" | sed 's/ \(..\)/0x\1,/g'
    echo '0};'
done
echo 'const H5SchemaText h5_schema_texts[] = {'
for file in "$@"; do
    name=$(basename "$file" .yaml)
    echo "    {\"$name\", text_$name},"
done
echo '    {0, 0}};'
