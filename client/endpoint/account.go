package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"singularity/api"
	"singularity/client/transfer"
)

// How long an access token is, in characters: others are no tokens of a remote
// endpoint, and are never sent.
const (
	MinToken = 200
	MaxToken = 4096
)

// ErrNoDevice says that a service has no log-in by a browser elsewhere.
var ErrNoDevice = errors.New("the endpoint has no log-in by a code")

// get asks the service at address with token, if that is not empty, and decodes
// the answer.
func get(ctx context.Context, client *http.Client, address, token string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return do(client, req, out)
}

func do(client *http.Client, req *http.Request, out any) error {
	res, err := client.Do(req)
	if err != nil {
		return transfer.Plain(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return transfer.NewStatusError(res, "")
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return err
	}
	if len(text) > maxAnswer {
		return errors.New("the answer is too long")
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("cannot read the answer: %w", err)
	}
	return nil
}

// CheckToken asks the token service at base whether token is valid. What the
// answer says about the token may be missing.
func CheckToken(ctx context.Context, client *http.Client, base, token string) (*api.TokenStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var answer json.RawMessage
	err := get(ctx, client, base+"/v1/token-status", token, &answer)
	if s, ok := errors.AsType[*transfer.StatusError](err); ok && (s.Code == http.StatusNotFound || s.Code == http.StatusUnauthorized) {
		return nil, fmt.Errorf("the access token is not valid here: %w", err)
	}
	if _, isJSON := errors.AsType[*json.SyntaxError](err); err != nil && !isJSON {
		return nil, fmt.Errorf("cannot check the access token: %w", err)
	}
	var status struct{ Data api.TokenStatus }
	json.Unmarshal(answer, &status) // other services answer with anything
	return &status.Data, nil
}

// CurrentUser asks the library at base whose token it is.
func CurrentUser(ctx context.Context, client *http.Client, base, token string) (*api.CurrentUser, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var u api.CurrentUser
	if err := get(ctx, client, base+"/v1/rbac/users/current", token, &u); err != nil {
		return nil, err
	}
	return &u, nil
}

// Version asks a service which version it has.
func Version(ctx context.Context, client *http.Client, base string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var answer struct{ Data api.Version }
	if err := get(ctx, client, base+"/version", "", &answer); err != nil {
		return "", err
	}
	return answer.Data.Version, nil
}

// CheckCredential asks the service at address whether auth, the value of an
// Authorization header, is good there.
func CheckCredential(ctx context.Context, client *http.Client, address, auth string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", auth)
	return do(client, req, nil)
}

// StartDevice begins a log-in at the token service at base, which the user goes
// on with in a browser. program is shown there.
func StartDevice(ctx context.Context, client *http.Client, base, program string) (*api.DeviceCode, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := postForm(ctx, base+"/v1/device", url.Values{"client_id": {program}})
	if err != nil {
		return nil, err
	}
	var code api.DeviceCode
	err = do(client, req, &code)
	if s, ok := errors.AsType[*transfer.StatusError](err); ok && (s.Code == http.StatusNotFound || s.Code == http.StatusMethodNotAllowed) {
		return nil, ErrNoDevice
	}
	if err != nil {
		return nil, err
	}
	if code.DeviceCode == "" || code.UserCode == "" || code.VerificationURI == "" || code.ExpiresIn <= 0 {
		return nil, errors.New("the token service begins a log-in without a code")
	}
	return &code, nil
}

// WaitDevice waits until the user has agreed and returns the new token.
func WaitDevice(ctx context.Context, client *http.Client, base string, code *api.DeviceCode) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(min(code.ExpiresIn, 3600))*time.Second, errors.New("nobody entered the code in time"))
	defer cancel()
	every := time.Duration(min(max(code.Interval, 1), 60)) * time.Second
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {code.DeviceCode}}
	for {
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(every):
		}
		token, err := pollDevice(ctx, client, base+"/v1/device/token", form)
		if err == nil {
			return token, nil
		}
		switch err.Error() {
		case "authorization_pending":
		case "slow_down":
			every += time.Second
		case "access_denied":
			return "", errors.New("the log-in was refused in the browser")
		case "expired_token":
			return "", errors.New("the code has expired")
		default:
			return "", err
		}
	}
}

func pollDevice(ctx context.Context, client *http.Client, address string, form url.Values) (string, error) {
	req, err := postForm(ctx, address, form)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", transfer.Plain(err)
	}
	defer res.Body.Close()
	var answer api.DeviceToken
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Error == "" && res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the token service answers with %s", res.Status)
	}
	if answer.Error != "" {
		return "", errors.New(answer.Error)
	}
	return answer.AccessToken, nil
}

func postForm(ctx context.Context, address string, form url.Values) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}
