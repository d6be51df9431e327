package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"singularity/api"
	"singularity/conf"
	"singularity/server/auth"
	"singularity/server/library"
	"singularity/server/registry"
	"singularity/server/route"
	"singularity/server/store/embedded"
)

// collect frees what nobody needs any more, or tells what that is.
func collect(ctx context.Context, s *embedded.Store, lib *library.Service, oci *registry.Service, dry bool) (api.Collected, error) {
	r := api.Collected{DryRun: dry}
	var err error
	if r.Uploads, r.UploadBytes, err = endUploads(ctx, s.Blobs, dry); err != nil {
		return r, err
	}
	if !dry {
		if err := errors.Join(oci.Sweep(ctx), lib.Purge(ctx)); err != nil {
			return r, err
		}
	}
	if r.Contents, r.Bytes, err = lib.Collect(ctx, dry); err != nil || dry {
		return r, err
	}
	_, err = s.Records.Sweep(ctx)
	return r, err
}

// jobs are the calls by which administrators look after a server that runs.
type jobs struct {
	s       *Server
	started time.Time
	running sync.Mutex // one collection at a time
}

// Routes are the calls.
func (j *jobs) Routes() []route.Route {
	return []route.Route{
		{Pattern: "GET /v1/admin/system", Handler: route.Func(j.system)},
		{Pattern: "POST /v1/admin/gc", Handler: route.Func(j.collect), Class: route.Push},
	}
}

func (j *jobs) collect(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := auth.From(ctx).RequireAdmin(); err != nil {
		return err
	}
	var body struct{ DryRun bool }
	if err := route.Decode(r, &body); err != nil {
		return err
	}
	if !j.running.TryLock() {
		return route.Errorf(http.StatusConflict, "a collection runs already")
	}
	defer j.running.Unlock()
	// It goes on if the caller goes away: half of it is no less right, but the
	// record should tell of a whole one.
	got, err := collect(context.WithoutCancel(ctx), j.s.store, j.s.lib, j.s.oci, body.DryRun)
	if !body.DryRun || err != nil {
		j.s.auth.Audit(ctx, "gc.run", "storage", err, map[string]string{"contents": strconv.Itoa(got.Contents), "bytes": strconv.FormatInt(got.Bytes, 10), "uploads": strconv.Itoa(got.Uploads), "uploadBytes": strconv.FormatInt(got.UploadBytes, 10)})
	}
	if err != nil {
		return err
	}
	route.Data(w, got)
	return nil
}

func (j *jobs) system(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if err := auth.From(ctx).RequireAdmin(); err != nil {
		return err
	}
	v := api.System{Version: conf.Version, Started: j.started, RecordsAnswer: j.s.store.Records.Ping(ctx) == nil, BlobsAnswer: j.s.store.Blobs.Ping(ctx) == nil, Undo: j.s.config.LibraryUndo}
	var fs unix.Statfs_t
	if err := unix.Statfs(j.s.config.Data, &fs); err == nil {
		v.DiskSize, v.DiskFree = int64(fs.Blocks)*fs.Bsize, int64(fs.Bavail)*fs.Bsize
	}
	for u, err := range j.s.store.Blobs.Uploads(ctx) {
		if err != nil {
			return err
		}
		v.Uploads++
		v.UploadBytes += u.Size
	}
	v.CertificateExpires = j.certificateEnd()
	route.Data(w, v)
	return nil
}

// certificateEnd is when somebody has to see to the certificate: that of the files,
// or of the own authority, since its leaves and those of ACME come anew in time.
func (j *jobs) certificateEnd() time.Time {
	switch c := j.s.config; {
	case c.TLSCert != "":
		if cert, err := (&given{cert: c.TLSCert, key: c.TLSKey}).get(nil); err == nil {
			return cert.Leaf.NotAfter
		}
	case !c.InsecureHTTP && len(c.ACMEHosts) == 0:
		return j.s.ca.cert.NotAfter
	}
	return time.Time{}
}
