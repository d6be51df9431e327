// Command singularity-cli carries out every verb of singularity that does not
// start a container, and starts those that need limits of resources. People call it through singularity, never by name.
package main

import (
	"os"

	"singularity/cli"
)

func main() {
	os.Exit(cli.Main(os.Args))
}
