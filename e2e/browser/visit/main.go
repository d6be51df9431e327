// Command visit is a person with a browser: it opens pages of a server in a
// headless Chromium, clicks as people do, and keeps what it sees as pictures.
//
//	visit DIR setup LINK ADDRESS    choose a password, agree to a terminal's log-in
//	visit DIR tour URL NAME PATH... look at pages, log in, and look at more
//	visit DIR builder URL NAME      look at the builder and the newest build
//
// The password is in the variable PASSWORD, since other users see arguments.
// The certificate of the server is checked by the authorities of SSL_CERT_FILE.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "visit:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 4 {
		return errors.New("usage: visit DIR setup LINK ADDRESS | visit DIR tour URL NAME PATH... | visit DIR builder URL NAME")
	}
	password := os.Getenv("PASSWORD")
	v := visit{dir: args[0]}
	end, err := v.start(args[2])
	if err != nil {
		return err
	}
	defer end()
	switch args[1] {
	case "setup":
		return v.setup(args[2], password, args[3])
	case "builder":
		return v.builder(args[2], args[3], password)
	}
	return v.tour(args[2], args[3], password, args[4:])
}

type visit struct {
	dir string
	ctx context.Context
}

// start begins a browser that trusts the certificate of the server at address,
// after this program has checked it: Chromium reads no SSL_CERT_FILE.
func (v *visit) start(address string) (func(), error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	conn, err := tls.Dial("tcp", u.Host, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot check the certificate: %w", err)
	}
	pin := sha256.Sum256(conn.ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	conn.Close()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		return nil, err
	}
	profile, err := os.MkdirTemp("", "visit-")
	if err != nil {
		return nil, err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.UserDataDir(profile),
		chromedp.Flag("ignore-certificate-errors-spki-list", base64.StdEncoding.EncodeToString(pin[:])))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, late := context.WithTimeout(context.Background(), 2*time.Minute)
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	v.ctx, _ = chromedp.NewContext(ctx)
	return func() { stop(); late(); os.RemoveAll(profile) }, v.do(chromedp.EmulateViewport(1280, 900))
}

func (v *visit) do(steps ...chromedp.Action[chromedp.Void]) error {
	return chromedp.Do(v.ctx, steps...)
}

// click presses what leads to another page.
func (v *visit) click(selector string) error {
	_, err := chromedp.RunResponse(v.ctx, chromedp.Click(chromedp.CSS(selector)))
	return err
}

// keep takes a picture of the page.
func (v *visit) keep(name string) error {
	title, err := chromedp.Run(v.ctx, chromedp.Evaluate[string]("document.title"))
	if err != nil {
		return err
	}
	b, err := chromedp.Run(v.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		return err
	}
	file := filepath.Join(v.dir, name+".png")
	fmt.Printf("%s: %s\n", file, title)
	return os.WriteFile(file, b, 0o644)
}

func (v *visit) setup(link, password, address string) error {
	if err := v.do(chromedp.Navigate(link), chromedp.SendKeys(chromedp.CSS("input[name=password]"), password)); err != nil {
		return err
	}
	if err := errors.Join(v.keep("setup"), v.click("main button")); err != nil {
		return err
	}
	if err := errors.Join(v.do(chromedp.Navigate(address)), v.keep("device")); err != nil {
		return err
	}
	return v.click("button[value=agree]")
}

func (v *visit) tour(address, name, password string, paths []string) error {
	for _, p := range paths { // as nobody
		if err := v.look(address+p, p); err != nil {
			return err
		}
	}
	if err := v.logIn(address, name, password); err != nil {
		return err
	}
	for _, p := range []string{"/auth/tokens", "/admin", "/admin/audit"} {
		if err := v.look(address+p, p); err != nil {
			return err
		}
	}
	return nil
}

func (v *visit) logIn(address, name, password string) error {
	err := v.do(chromedp.Navigate(address+"/auth/login"), chromedp.SendKeys(chromedp.CSS("input[name=name]"), name), chromedp.SendKeys(chromedp.CSS("input[name=password]"), password))
	return errors.Join(err, v.click("main button.main"))
}

// builder looks at the editor, at what is said about a faulty definition, at the
// newest build, which must have gone well, and at who builds what.
func (v *visit) builder(address, name, password string) error {
	if err := v.logIn(address, name, password); err != nil {
		return err
	}
	err := v.do(chromedp.Navigate(address+"/builder"), chromedp.SendKeys(chromedp.CSS("#definition"), "\n%pots\n"))
	if err = errors.Join(err, v.click("button[value=check]"), v.keep("builder-check")); err != nil {
		return err
	}
	for _, p := range []string{"/builder", "/builder/builds", "/builder/registries", "/admin/builds"} {
		if err := v.look(address+p, p); err != nil {
			return err
		}
	}
	build, err := chromedp.Run(v.ctx, chromedp.Evaluate[string]("document.querySelector('a[href^=\"/builder/builds/\"]').pathname"))
	if err != nil {
		return err
	}
	if err := v.look(address+build, "build"); err != nil {
		return err
	}
	text, err := chromedp.Run(v.ctx, chromedp.Evaluate[string]("document.querySelector('main').innerText"))
	for _, want := range []string{"succeeded", "Build complete: library://", "From: admin/tools/demo", "Provenance", "singularity pull library://"} {
		if err == nil && !strings.Contains(text, want) {
			err = fmt.Errorf("the page %s does not say %q: %s", build, want, text)
		}
	}
	return err
}

// look takes a picture of a page in light and dark.
func (v *visit) look(address, path string) error {
	res, err := chromedp.RunResponse(v.ctx, chromedp.Navigate(address))
	if err != nil {
		return err
	}
	if res != nil && res.Status != 200 {
		return fmt.Errorf("%s: status %d", address, res.Status)
	}
	name := strings.Map(func(c rune) rune {
		if strings.ContainsRune("/:?=&", c) {
			return '-'
		}
		return c
	}, strings.Trim(path, "/"))
	if name == "" {
		name = "home"
	}
	for _, scheme := range []string{"light", "dark"} {
		_, err := chromedp.Call(v.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		if err = errors.Join(err, v.keep(name+"-"+scheme)); err != nil {
			return err
		}
	}
	return nil
}
