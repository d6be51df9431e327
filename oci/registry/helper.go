package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

const (
	helperTime = 30 * time.Second
	maxHelper  = 1 << 20
)

// helperEntry is what goes to and comes from a program that keeps credentials.
type helperEntry struct {
	ServerURL string
	Username  string
	Secret    string
}

// errNoEntry says that a helper has nothing for a host.
var errNoEntry = errors.New("no credentials")

// runHelper calls docker-credential-NAME with a verb. in goes in as JSON, a
// string as it is, and what comes out goes to out unless that is nil.
func runHelper(name, verb string, in any, out *helperEntry) error {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" || name[0] == '.' {
		return &HelperError{Name: name, Err: errors.New("this is no name of a helper")}
	}
	text, ok := in.(string)
	if !ok {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		text = string(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), helperTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker-credential-"+name, verb)
	cmd.Stdin = strings.NewReader(text)
	cmd.WaitDelay = time.Second
	var stdout, stderr limited
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		said := strings.TrimSpace(stdout.String() + " " + stderr.String())
		// The words of the protocol for nothing found.
		if strings.Contains(said, "credentials not found") || strings.Contains(said, "no credentials server URL") {
			return errNoEntry
		}
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %v", helperTime)
		} else if _, exited := errors.AsType[*exec.ExitError](err); exited && verb != "get" && said != "" {
			err = errors.New(said)
		} else if exited {
			// Security: what a helper prints on get may be the secret.
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
		}
		return &HelperError{Name: name, Err: err}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(stdout.Bytes(), out); err != nil {
		return &HelperError{Name: name, Err: errors.New("its answer is no JSON")}
	}
	return nil
}

// limited takes the beginning of what a program prints.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxHelper {
		return 0, io.ErrShortWrite
	}
	return l.Buffer.Write(p)
}

// HelperError is the failure of a program that keeps credentials. It ends the
// search: another source could have credentials that are not meant for this.
type HelperError struct {
	Name string
	Err  error
}

func (e *HelperError) Error() string {
	return fmt.Sprintf("cannot use the credential helper docker-credential-%s: %v", e.Name, e.Err)
}

// Unwrap returns the cause.
func (e *HelperError) Unwrap() error { return e.Err }
