package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// flagEnv names the variable SINGULARITY_key that stands in for a flag.
type flagEnv struct {
	flag, key string
	// appends adds the value to those of the command line; otherwise the
	// variable counts only where the flag was not given.
	appends bool
}

// setFromEnv sets flags of c from the environment. An empty variable is none.
func setFromEnv(c *cobra.Command, table []flagEnv) error {
	given := map[string]bool{}
	for _, e := range table {
		given[e.flag] = given[e.flag] || c.Flags().Changed(e.flag)
	}
	for _, e := range table {
		value := strings.TrimSpace(os.Getenv("SINGULARITY_" + e.key))
		if value == "" || given[e.flag] && !e.appends {
			continue
		}
		if err := c.Flags().Set(e.flag, value); err != nil {
			return fmt.Errorf("While parsing environment variables: SINGULARITY_%s: %w", e.key, err)
		}
		given[e.flag] = true
	}
	return nil
}
