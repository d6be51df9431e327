package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"singularity/oci/unpack"
)

const (
	dockerSocket  = "unix:///var/run/docker.sock"
	daemonTimeout = 2 * time.Minute // for the first byte of an answer
	maxAnswer     = 64 << 10        // bytes of an error's text
)

// openDaemon lets a Docker daemon save an image to an unnamed temporary file:
// its layers are needed twice, and it sends them once.
func openDaemon(ctx context.Context, name string, o *Options) (*Image, error) {
	if name == "" || strings.ContainsAny(name, " \t\r\n?#%") || strings.HasPrefix(name, "-") {
		return nil, fmt.Errorf("%q is no name of an image", name)
	}
	if last := name[strings.LastIndexByte(name, '/')+1:]; !strings.ContainsAny(last, ":@") {
		name += ":latest"
	}
	f, err := os.CreateTemp(o.TempDir, "docker-save-*.tar")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		err = save(ctx, name, f, o)
	}
	var s *tarStore
	if err == nil {
		s, err = openTar(ctx, f, o.limits())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	img, err := readSaved(s, name, "", o)
	if err != nil {
		s.Close()
		return nil, err
	}
	return NewImage(img, s), nil
}

// save copies the daemon's archive of an image.
func save(ctx context.Context, name string, to io.Writer, o *Options) error {
	host := o.DockerHost
	if host == "" {
		host = o.getenv("DOCKER_HOST")
	}
	if host == "" {
		host = dockerSocket
	}
	client, base, err := daemonClient(host, o)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	// Names such as a/b are several parts of the path for the daemon.
	u := base + "/images/" + (&url.URL{Path: name}).EscapedPath() + "/get"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return fmt.Errorf("cannot reach the Docker daemon at %q: %w", host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the Docker daemon at %q: %s", host, daemonError(resp))
	}
	limit := o.limits().Size
	n, err := io.Copy(to, io.LimitReader(resp.Body, limit+1))
	if err == nil && n > limit {
		err = unpack.ErrLimit
	}
	if err != nil {
		return fmt.Errorf("cannot copy the image from the Docker daemon at %q: %w", host, err)
	}
	return nil
}

// daemonError is what the daemon says went wrong.
func daemonError(resp *http.Response) string {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // a part is better than nothing
	var answer struct{ Message string }
	if json.Unmarshal(data, &answer) == nil && answer.Message != "" {
		return answer.Message
	}
	return resp.Status
}

// daemonClient returns a client and the address that its requests begin with.
func daemonClient(host string, o *Options) (*http.Client, string, error) {
	scheme, addr, ok := strings.Cut(host, "://")
	if !ok || addr == "" {
		return nil, "", fmt.Errorf("cannot use %q as the address of a Docker daemon: want unix://PATH or tcp://HOST:PORT", host)
	}
	network, base := "unix", "http://docker"
	switch scheme {
	case "unix":
	case "tcp", "http":
		if o.getenv("DOCKER_TLS_VERIFY") != "" {
			// Security: to leave TLS out because we cannot do it would be worse.
			return nil, "", fmt.Errorf("cannot use %q: DOCKER_TLS_VERIFY is set, and only a plain connection or a socket is supported", host)
		}
		network, base = "tcp", "http://"+addr
	default:
		return nil, "", fmt.Errorf("cannot use %q as the address of a Docker daemon: only unix:// and tcp:// are supported", host)
	}
	var d net.Dialer
	t := &http.Transport{ResponseHeaderTimeout: daemonTimeout, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, network, addr) }}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("it leads to another address")
	}}, base, nil
}
