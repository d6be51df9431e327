#!/bin/sh
# Makes the images *.img.gz: small trees in every way of storing them.
set -eu
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
t=$tmp/tree
mkdir -p "$t/a/b" "$t/many"
echo deep >"$t/a/b/deep"
ln -s /a/../a/b/deep "$t/to-deep"
ln -s loop "$t/loop"
ln -s "$(printf %0100d 7)" "$t/long"
head -c 30000 /dev/zero | tr '\0' d >"$t/data"
truncate -s 400000 "$t/holes"; printf end | dd of="$t/holes" bs=1 seek=400000 conv=notrunc status=none
echo small >"$t/small"
setfattr -n user.a -v value "$t/small"
setfattr -n user.b -v "$(printf %0300d 7)" "$t/data"
mkfifo "$t/fifo"
i=0
while [ $i -lt 80 ]; do ln "$t/small" "$t/many/name-$i"; i=$((i + 1)); done
make() { # name, options
	name=$1; shift
	mke2fs -q -F -b 1024 -N 32 -U 00000000-0000-0000-0000-000000000001 -d "$t" "$@" "$tmp/img" 160
	gzip -9nc "$tmp/img" >"$name.img.gz"
	rm "$tmp/img"
}
make ext2 -t ext2
make ext3map -t ext4 -O ^has_journal,^extent,^metadata_csum,^64bit
make ext4 -t ext4 -O ^has_journal,^resize_inode
make inline -t ext4 -O ^has_journal,^resize_inode,inline_data
