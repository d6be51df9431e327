package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// proxy is the way of a sandbox to the network: HTTP, and CONNECT for the rest.
//
// Security: names are resolved here, once, and what was checked is what is
// connected to, so that a name cannot mean a public address first and an internal
// one then. The host's own addresses, private, link-local and reserved ones are
// refused: metadata services, databases, and our own services are there. The
// library's public address is not, and what the administrator allows.
type proxy struct {
	library string // host:port
	own     map[netip.Addr]bool
	allow   []allowed
	slots   chan struct{}
	forget  http.Handler
	connect func(ctx context.Context, network, address string) (net.Conn, error)
}

// maxConnections of one sandbox.
const maxConnections = 256

// allowed is a network, or a host, that the administrator lets builds reach.
type allowed struct {
	net  netip.Prefix
	host string // host:port, or a host
}

func parseAllow(list []string) ([]allowed, error) {
	var out []allowed
	for _, text := range list {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, allowed{net: p.Masked()})
			continue
		}
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, allowed{net: netip.PrefixFrom(a, a.BitLen())})
			continue
		}
		if text == "" || strings.ContainsAny(text, "/ ") {
			return nil, fmt.Errorf("cannot allow %q: it is no network like 10.0.0.0/8 and no HOST:PORT", text)
		}
		out = append(out, allowed{host: strings.ToLower(text)})
	}
	return out, nil
}

func newProxy(s *spec) (*proxy, error) {
	u, err := url.Parse(s.Library)
	if err != nil {
		return nil, err
	}
	p := &proxy{library: hostPort(u), own: map[netip.Addr]bool{}, slots: make(chan struct{}, maxConnections), connect: (&net.Dialer{}).DialContext}
	if p.allow, err = parseAllow(s.Allow); err != nil {
		return nil, err
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				p.own[ip.Unmap()] = true
			}
		}
	}
	p.forget = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {}, ErrorLog: log.New(io.Discard, "", 0), ErrorHandler: refused,
		Transport: &http.Transport{DialContext: p.dial, DisableCompression: true, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: 30 * time.Second, MaxConnsPerHost: 64}}
	return p, nil
}

func refused(w http.ResponseWriter, _ *http.Request, err error) {
	http.Error(w, err.Error(), http.StatusForbidden)
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// loopback returns the address of a library on the loopback of this machine.
func loopback(u *url.URL) (string, bool) {
	host, port, err := net.SplitHostPort(hostPort(u))
	if err != nil {
		return "", false
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	a, err := netip.ParseAddr(host)
	return net.JoinHostPort(host, port), err == nil && a.IsLoopback()
}

// reserved are networks that are not public though the library of Go does not
// say so, and a public address behind which Azure has a service of each machine's.
var reserved = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("2001:db8::/32")}

// public tells whether builds may connect to an address.
func (p *proxy) public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() || p.own[a] {
		return false
	}
	for _, r := range reserved {
		if r.Contains(a) {
			return false
		}
	}
	return true
}

// may tells whether builds may connect to an address of a host.
func (p *proxy) may(host, port string, a netip.Addr) bool {
	for _, x := range p.allow {
		if x.host != "" && (x.host == host || x.host == net.JoinHostPort(host, port)) || x.net.IsValid() && x.net.Contains(a.Unmap()) {
			return true
		}
	}
	return net.JoinHostPort(host, port) == p.library || p.public(a)
}

var errRefused = errors.New("builds may not connect there")

// dial connects to a host, if builds may.
func (p *proxy) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("there is no host %q", host)
	}
	err = errRefused
	for _, a := range addrs {
		if !p.may(host, port, a) {
			continue
		}
		var c net.Conn
		if c, err = p.connect(ctx, "tcp", net.JoinHostPort(a.String(), port)); err == nil {
			return c, nil
		}
	}
	return nil, err
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		http.Error(w, "too many connections", http.StatusServiceUnavailable)
		return
	}
	if r.Method != http.MethodConnect {
		if r.URL.Scheme != "http" || r.URL.Host == "" {
			http.Error(w, "this is a proxy for http and CONNECT", http.StatusBadRequest)
			return
		}
		p.forget.ServeHTTP(w, r)
		return
	}
	to, err := p.dial(r.Context(), "tcp", r.Host)
	if err != nil {
		refused(w, r, err)
		return
	}
	defer to.Close()
	from, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	if _, err := io.WriteString(from, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	join(from, buf, to)
}

// join copies both ways until both are at their end.
func join(from net.Conn, early io.Reader, to net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(to, early)
		if c, ok := to.(*net.TCPConn); ok {
			c.CloseWrite()
		}
	}()
	io.Copy(from, to)
	if c, ok := from.(*net.TCPConn); ok {
		c.CloseWrite()
	}
	<-done
}

func (p *proxy) serve(l net.Listener) {
	(&http.Server{Handler: p, ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 64 << 10, ErrorLog: log.New(io.Discard, "", 0)}).Serve(l)
}

// forward connects who comes with the library.
func (p *proxy) forward(l net.Listener) {
	for {
		from, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close()
			select {
			case p.slots <- struct{}{}:
				defer func() { <-p.slots }()
			default:
				return
			}
			to, err := net.DialTimeout("tcp", p.library, 20*time.Second)
			if err != nil {
				return
			}
			defer to.Close()
			join(from, from, to)
		}()
	}
}
