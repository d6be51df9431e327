package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"singularity/server/conformance"
)

func newConformance() *cobra.Command {
	var tokenFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "conformance URL",
		Short: "Check any server against what clients need",
		Long: "conformance makes the calls of a client to the server at URL and looks at each answer: discovery, tokens, push in one part and in parts, pull with ranges, tags, search, delete, keys, registry. " +
			"With a token it makes a collection of a random name for the token's user and a key for an address that nobody has, and removes both if the server lets it. Without one it only reads. Its status is 1 if a check fails.",
		Example: "  $ singularity-server conformance https://images.example.org:8443 --token-file token",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, words []string) error {
			u, err := url.Parse(words[0])
			if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
				return fmt.Errorf("cannot check %q: it is no address like https://images.example.org", words[0])
			}
			o := conformance.Options{URL: words[0], Client: &http.Client{Timeout: 2 * time.Minute}}
			if tokenFile != "" {
				if o.Token, err = firstLine(tokenFile); err != nil {
					return fmt.Errorf("cannot read the token: %w", err)
				}
			}
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return report(cmd.OutOrStdout(), words[0], conformance.Run(ctx, o), asJSON)
		},
	}
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with an access token of all rights of a user")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the results as JSON")
	return cmd
}

func firstLine(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, 8<<10)).ReadString('\n')
	if line = strings.TrimSpace(line); line == "" {
		if err == nil || err == io.EOF {
			err = fmt.Errorf("%q is empty", name)
		}
		return "", err
	}
	return line, nil
}

// report prints the results, and returns an error if a check has failed.
func report(w io.Writer, address string, results []conformance.Result, asJSON bool) error {
	count := map[conformance.Outcome]int{}
	for _, r := range results {
		count[r.Outcome]++
	}
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if err := e.Encode(struct {
			URL     string               `json:"url"`
			Passed  int                  `json:"passed"`
			Failed  int                  `json:"failed"`
			Skipped int                  `json:"skipped"`
			Results []conformance.Result `json:"results"`
		}{address, count[conformance.Pass], count[conformance.Fail], count[conformance.Skip], results}); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			fmt.Fprintf(w, "%-4s  %-15s  %s\n", r.Outcome, r.ID, r.What)
			if r.Detail != "" {
				fmt.Fprintf(w, "%23s%s\n", "", plainText(r.Detail))
			}
		}
		fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", count[conformance.Pass], count[conformance.Fail], count[conformance.Skip])
	}
	if n := count[conformance.Fail]; n > 0 {
		return fmt.Errorf("%s does not conform: %d checks failed", address, n)
	}
	return nil
}

// plainText keeps what a server says from acting on the terminal.
func plainText(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return '?'
		}
		return c
	}, s)
}
