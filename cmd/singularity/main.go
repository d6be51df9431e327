// Command singularity starts containers: exec, run, shell and test. Every
// other verb is handed to singularity-cli, which stands beside it.
package main

import (
	"os"

	"singularity/action"
)

func main() {
	os.Exit(action.Main(os.Args, action.Extensions{}, nil))
}
