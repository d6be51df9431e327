// Command starter-suid is the setuid helper: it makes containers for people who
// may not, or where the kernel lets nobody, use a user namespace. Only singularity
// starts it; see package priv for what it does.
package main

import (
	"os"

	"singularity/priv"
)

func main() {
	os.Exit(priv.Main())
}
