package action

import (
	"os"
	"time"

	"singularity/runlog"
)

// runRecord is the note that this start leaves for the site, if the site asks
// for any ("run records"). Nothing about it may hinder a container: what fails
// is said to those who want to hear, no more.
type runRecord struct {
	s     *starter
	entry *runlog.Entry
}

// write leaves the record.
func (r *runRecord) write() {
	s := r.s
	if s.conf.RunRecords == "" || s.image == nil || r.entry != nil {
		return
	}
	host, err := os.Hostname()
	if err != nil {
		return
	}
	rec := runlog.Record{Start: time.Now().UTC(), Host: host, Verb: s.verb, Job: runlog.Job(os.Getenv)}
	if s.instance != "" {
		rec.Verb = "instance"
	}
	if err = rec.Describe(s.image.File, s.image.Path); err == nil {
		r.entry, err = runlog.Write(s.conf.RunRecords, rec)
	}
	if err != nil {
		s.log.Verbose("No record of this run: " + err.Error())
	}
}

// end notes that the container has ended.
func (r *runRecord) end() {
	if r.entry == nil {
		return
	}
	if err := r.entry.End(time.Now()); err != nil {
		r.s.log.Verbose("No record of the end of this run: " + err.Error())
	}
}
