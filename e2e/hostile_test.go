package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"singularity/sif"
)

// What a program of ours may use until it has refused hostile bytes. The time is
// that of the processor, so that a busy machine changes nothing.
const (
	hostileCPU    = 2 * time.Second
	hostileMemory = 128 << 10       // KiB, resident
	hostileSpace  = "1500000"       // KiB, addresses: what is reserved beside it
	hostileEnd    = 2 * time.Minute // until it is said to hang
)

// hostile is one thing that nobody honest makes.
type hostile struct {
	name string
	data string
	want string // in the messages
}

// hostileCommand gives hostile bytes to the programs: hostile luks IMAGE, keyring
// IMAGE, signature IMAGE or tree IMAGE. Each must be refused with its cause.
func hostileCommand(ts *testscript.TestScript, neg bool, args []string) {
	image := ts.MkAbs(args[1])
	switch args[0] {
	case "key": // an RSA key, in two files beside the image
		hostileKey(ts, image)
	case "luks":
		for _, h := range hostileHeaders {
			bad := forgeHeader(ts, image, h)
			bounded(ts, h, "", "singularity", "exec", "--pem-path", ts.MkAbs("key.pem"), bad, "true")
		}
	case "keyring":
		for _, h := range hostileRings() {
			dir := ts.MkAbs("rings")
			os.RemoveAll(dir)
			ts.Check(os.Mkdir(dir, 0o700))
			ts.Check(os.WriteFile(dir+"/pgp-public", []byte(h.data), 0o600))
			if h.data == "" { // nothing but a size
				ts.Check(os.Truncate(dir+"/pgp-public", 3<<30))
			}
			bounded(ts, h, "SINGULARITY_SYPGPDIR="+dir, "singularity", "verify", image)
			// A start asks the ring too, and goes on without it.
			bounded(ts, hostile{h.name + ", start", "", "origin of the image is not proven"}, "SINGULARITY_SYPGPDIR="+dir, "singularity", "-v", "exec", image, "false")
		}
	case "signature":
		for _, h := range hostileSignatures() {
			bad := replaceObject(ts, image, sif.DataSignature, h.data)
			if strings.HasPrefix(h.data, "{") {
				// Only who has a key for envelopes looks into one.
				bounded(ts, h, "", "singularity", "verify", "--key", ts.MkAbs("pub.pem"), bad)
				continue
			}
			bounded(ts, h, "", "singularity", "verify", bad)
			h.want = "the signature of the image is not valid: .*" + h.want
			bounded(ts, h, "", "singularity", "exec", bad, "true")
		}
	case "tree":
		for _, h := range hostileManifests {
			bad := replaceObject(ts, image, sif.DataJSON, h.data)
			bounded(ts, h, "", "singularity", "sign", bad)
			// Nobody has signed it: it starts, and the tree is not believed.
			h.want = "origin of the image is not proven"
			if text := bounded(ts, h, "", "singularity", "-v", "exec", bad, "false"); strings.Contains(text, "is checked while it runs") {
				ts.Fatalf("%s: the tree is used", h.name)
			}
		}
	}
}

// costLine is what the probe says of a program.
var costLine = regexp.MustCompile(`(?m)^cost: ([0-9]+) ([0-9]+)$`)

// bounded runs a program that must end by itself, with a refusal, and be modest
// until then.
func bounded(ts *testscript.TestScript, h hostile, env string, argv ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), hostileEnd)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", append([]string{"-c", `ulimit -v ` + hostileSpace + `; exec probe cost "$@"`, "sh"}, argv...)...)
	c.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"), "HOME="+ts.Getenv("HOME"), "SINGULARITY_CONFIGDIR="+ts.Getenv("SINGULARITY_CONFIGDIR"),
		"SINGULARITY_SYPGPDIR="+ts.Getenv("SINGULARITY_SYPGPDIR"), env)
	c.Dir = ts.MkAbs(".")
	out, err := c.CombinedOutput()
	text := string(out)
	var cpu time.Duration
	var memory int64 // KiB
	cost := costLine.FindSubmatch(out)
	if cost != nil {
		us, _ := strconv.Atoi(string(cost[1]))
		cpu = time.Duration(us) * time.Microsecond
		memory, _ = strconv.ParseInt(string(cost[2]), 10, 64)
	}
	ts.Logf("%s: %v CPU, %d MiB: %s", h.name, cpu.Round(time.Millisecond), memory>>10, text[:min(len(text), 2000)])
	switch {
	case ctx.Err() != nil:
		ts.Fatalf("%s: %q did not end", h.name, argv)
	case err == nil:
		ts.Fatalf("%s: %q was not refused", h.name, argv)
	case !regexp.MustCompile(h.want).MatchString(text), strings.Contains(text, "goroutine "):
		ts.Fatalf("%s: want %q", h.name, h.want)
	case cost == nil:
		ts.Fatalf("%s: no figures of what it cost", h.name)
	case cpu > hostileCPU:
		ts.Fatalf("%s: refused after %v of CPU", h.name, cpu)
	case memory > hostileMemory:
		ts.Fatalf("%s: refused after taking %d MiB", h.name, memory>>10)
	}
	return text
}

func run(ts *testscript.TestScript, argv ...string) {
	ts.Check(ts.Exec(argv[0], argv[1:]...))
}

func hostileKey(ts *testscript.TestScript, image string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	ts.Check(err)
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	public := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
	ts.Check(os.WriteFile(filepath.Join(filepath.Dir(image), "key.pem"), private, 0o600))
	ts.Check(os.WriteFile(filepath.Join(filepath.Dir(image), "pub.pem"), public, 0o600))
}

// hostileHeaders are changes of the text of a LUKS2 header: what to find, a tab,
// what stands in its place.
var hostileHeaders = []hostile{
	{"null cipher", `"encryption":"[^"]*"` + "\t" + `"encryption":"cipher_null-ecb"`, headerRefused},
	{"iterations", `"iterations":[0-9]+` + "\t" + `"iterations":4294967290`, headerRefused},
	{"stripes", `"stripes":[0-9]+` + "\t" + `"stripes":1099511627776`, headerRefused},
	{"memory of 8 GiB", `"kdf":\{[^}]*\}` + "\t" + `"kdf":{"type":"argon2id","time":4,"memory":8388608,"cpus":4,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="}`, headerRefused},
	{"memory of 4 GiB", `"kdf":\{[^}]*\}` + "\t" + `"kdf":{"type":"argon2id","time":4,"memory":4194304,"cpus":4,"salt":"AAAAAAAAAAAAAAAAAAAAAA=="}`,
		"needs 4096 MiB of memory to derive its key, and .* leaves"},
	{"offset", `"offset":"16777216"` + "\t" + `"offset":"9223372036854771712"`, headerRefused},
	{"requirements", `"config":\{` + "\t" + `"config":{"requirements":{"mandatory":["online-reencrypt"]},`, headerRefused},
	{"depth", `"tokens":\{\}` + "\t" + `"tokens":{"0":` + strings.Repeat("[", 4000) + strings.Repeat("]", 4000) + "}", headerRefused},
	{"no JSON", `^.*$` + "\t" + strings.Repeat("[", 12000), headerRefused},
}

const headerRefused = "cannot decrypt .*bad.sif: the LUKS2 header is not acceptable: .+"

// forgeHeader changes both copies of the header in a copy of the image, and makes
// the checksums fit.
func forgeHeader(ts *testscript.TestScript, image string, h hostile) string {
	const size, binarySize, sumOff = 16384, 4096, 448
	b, err := os.ReadFile(image)
	ts.Check(err)
	f, err := sif.Open(bytes.NewReader(b), int64(len(b)))
	ts.Check(err)
	root, err := f.Primary()
	ts.Check(err)
	from, to, _ := strings.Cut(h.data, "\t")
	for copy0 := root.Off; copy0 <= root.Off+size; copy0 += size {
		header := b[copy0 : copy0+size]
		text := bytes.TrimRight(header[binarySize:], "\x00")
		changed := regexp.MustCompile(from).ReplaceAll(text, []byte(to))
		if bytes.Equal(text, changed) || len(changed) >= size-binarySize {
			ts.Fatalf("%s: cannot make it of %s", h.name, text)
		}
		clear(header[binarySize:])
		copy(header[binarySize:], changed)
		clear(header[sumOff : sumOff+64])
		sum := sha256.Sum256(header)
		copy(header[sumOff:], sum[:])
	}
	bad := ts.MkAbs("bad.sif")
	ts.Check(os.WriteFile(bad, b, 0o755))
	return bad
}

func hostileRings() []hostile {
	const refused = "failed to verify container: .+"
	key := "\xc6\x0d\x04\x5f\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff" // claims 65535 bits
	return []hostile{
		{"3 GiB", "", refused},
		{"a packet of 4 GiB", "\xc6\xff\xff\xff\xff\xff\x04", refused},
		{"parts without an end", strings.Repeat("\xc6\xfe", 1<<19), refused},
		{"a key of 65535 bits", key, refused},
		{"many keys", strings.Repeat(key, 200000), "keyring has more than 10000 entries"},
		{"as many as are read", strings.Repeat(key, 10000), refused},
		{"many packets", strings.Repeat("\xcd\x00", 2000000), refused},
		{"compressed", "\xc8\xff\x00\x10\x00\x00\x02" + strings.Repeat("\x00", 1<<20), refused},
		{"armor without an end", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n" + strings.Repeat("AAAA\n", 1<<20), refused},
	}
}

func hostileSignatures() []hostile {
	envelope := `{"payloadType":"application/vnd.sylabs.sif-metadata+json","payload":"e30=","signatures":[`
	clear := "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{}\n-----BEGIN PGP SIGNATURE-----\n\n"
	armored := func(b string) string {
		return clear + base64.StdEncoding.EncodeToString([]byte(b)) + "\n-----END PGP SIGNATURE-----\n"
	}
	return []hostile{
		{"more than 1 MiB", strings.Repeat("A", 3<<20), "want at most 1048576"},
		{"depth", `{"payloadType":` + strings.Repeat("[", 500000), "not (valid|recognized)|holds"},
		{"signatures in one", envelope + strings.Repeat(`{"keyid":"","sig":"AAAA"},`, 30000) + `{}]}`, "more than [0-9]+ signatures"},
		{"a packet of 4 GiB", armored("\xc2\xff\xff\xff\xff\xff\x04"), "not valid"},
		{"many packets", armored(strings.Repeat("\xc2\x01\x04", 200000)), "not valid"},
		{"numbers of 65535 bits", armored("\xc2\x1d\x04\x01\x01\x08\x00\x06\x05\x02\x01\x02\x03\x04\x00\x0a\x09\x10\x01\x02\x03\x04\x05\x06\x07\x08\x00\x00\xff\xff\x01"), "not valid"},
		{"dashes", "-----BEGIN PGP SIGNED MESSAGE-----\n" + strings.Repeat("- -----BEGIN PGP SIGNED MESSAGE-----\n", 25000), "not (valid|recognized)"},
	}
}

const treeRefused = "failed to sign container: the hash tree of partition 3 is damaged: .+"

// hostileManifests describe hash trees.
var hostileManifests = []hostile{
	{"large", `{"version":1,"kind":"` + strings.Repeat("x", 3<<20) + `"}`, treeRefused},
	{"depth", strings.Repeat("[", 4000), treeRefused},
	{"blocks", manifest("9007199254740993", "9223372036854775807"), treeRefused},
	{"offset", manifest("1", "1"), treeRefused},
	{"twice", `{"version":1,"version":1}`, treeRefused},
}

func manifest(blocks, size string) string {
	return `{"version":1,"kind":"dm-verity","algorithm":"sha256","dataBlockSize":4096,"hashBlockSize":4096,"data":{"relativeId":2,"size":` + size +
		`,"blocks":` + blocks + `},"tree":{"relativeId":3,"offset":9223372036854775807,"size":` + size + `},"salt":"` + strings.Repeat("00", 32) +
		`","rootDigest":"sha256:` + strings.Repeat("00", 32) + `"}`
}

// replaceObject returns a copy of the image with other data in the place of the
// object of that type: of a signature, or else of the manifest, when the signatures
// are taken away too.
func replaceObject(ts *testscript.TestScript, image string, typ sif.DataType, data string) string {
	b, err := os.ReadFile(image)
	ts.Check(err)
	bad, content := ts.MkAbs("bad.sif"), ts.MkAbs("content")
	ts.Check(os.WriteFile(bad, b, 0o755))
	ts.Check(os.WriteFile(content, []byte(data), 0o644))
	f, err := sif.Open(bytes.NewReader(b), int64(len(b)))
	ts.Check(err)
	root, err := f.Primary()
	ts.Check(err)
	for _, o := range f.Objects() {
		if o.Type == sif.DataSignature || o.Type == typ && strings.HasPrefix(o.Name, "verity.json") {
			run(ts, "singularity", "sif", "del", strconv.Itoa(int(o.ID)), bad)
		}
	}
	if typ == sif.DataSignature {
		run(ts, "singularity", "sif", "add", "--datatype", "5", "--link", "0xF0000001", "--signhash", "1", "--signentity", strings.Repeat("A", 40), bad, content)
	} else {
		run(ts, "singularity", "sif", "add", "--datatype", "6", "--filename", "verity.json", "--groupid", "1", "--link", strconv.Itoa(int(root.ID)), bad, content)
	}
	return bad
}
