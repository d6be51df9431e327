// Package e2e runs the installed programs from scripts, as a user would: one
// script a topic in testdata, whose first line says what it proves.
//
// e2e/run installs the programs below a temporary prefix and runs the scripts
// as root and as two ordinary users, with and without subordinate ids. Scripts
// ask by conditions for what they need; what is left out is printed and counted.
//
// Images are made once: $SANDBOX, a directory with busybox; $SIF, built from it;
// $GZIP, $ZSTD, $LZ4, $XZ and $LZO, squashfs files; $EXT3. $MARK is a number
// that only this script uses, to find its processes by.
package e2e
