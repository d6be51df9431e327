// Command singularity-unlock is singularity with the cryptography of encrypted
// images: it asks for the key and starts the container. People call it through
// singularity, never by name.
package main

import (
	"os"

	"singularity/action"
	"singularity/cli/unlock"
)

func main() {
	os.Exit(action.Main(os.Args, unlock.Extensions(), unlock.Again))
}
