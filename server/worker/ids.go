package worker

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"singularity/host"
)

// idRange says which ids of the host a sandbox has: 0 inside is Root, and 1 to
// Count-1 are those from Start on. With Count 1 there is Root alone.
type idRange struct {
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	UIDs  uint32 `json:"uids"` // first of the others
	GIDs  uint32 `json:"gids"`
	Count uint32 `json:"count"`
	Root  bool   `json:"root"` // the worker is root, and writes the maps itself
}

const rangeSize = 65536

// ids chooses the ids of a slot. Root's builds get a range of their own for each
// slot, in which there is no user of this host; an ordinary worker's are the
// worker and its subordinate ids.
func (w *Worker) ids(slot int) (idRange, error) {
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		first := uint64(w.o.IDs) + uint64(slot)*rangeSize
		if first < rangeSize || first+rangeSize > 1<<32-2 {
			return idRange{}, errors.New("the ids of builds are out of range: choose another worker_ids")
		}
		return idRange{UID: uint32(first), GID: uint32(first), UIDs: uint32(first) + 1, GIDs: uint32(first) + 1, Count: rangeSize, Root: true}, nil
	}
	r := idRange{UID: uint32(uid), GID: uint32(gid), Count: 1}
	u, err := host.LookupUser(uid, gid)
	if err != nil {
		return r, nil
	}
	uids, gids, err := host.SubIDs(u)
	if err != nil || len(uids) == 0 || len(gids) == 0 {
		return r, nil
	}
	if _, err := exec.LookPath("newuidmap"); err != nil {
		return r, nil
	}
	r.UIDs, r.GIDs = uids[0].Start, gids[0].Start
	r.Count = min(uids[0].Count, gids[0].Count, rangeSize-1) + 1
	return r, nil
}

// write maps the ids for the process of a new user namespace.
func (r *idRange) write(pid int) error {
	if r.Count > 1 && !r.Root {
		for tool, ids := range map[string][2]uint32{"newuidmap": {r.UID, r.UIDs}, "newgidmap": {r.GID, r.GIDs}} {
			out, err := exec.Command(tool, strconv.Itoa(pid), "0", dec(ids[0]), "1", "1", dec(ids[1]), dec(r.Count-1)).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", tool, err, out)
			}
		}
		return nil
	}
	proc := "/proc/" + strconv.Itoa(pid)
	if !r.Root {
		if err := os.WriteFile(proc+"/setgroups", []byte("deny"), 0); err != nil {
			return err
		}
	}
	for file, ids := range map[string][2]uint32{"/uid_map": {r.UID, r.UIDs}, "/gid_map": {r.GID, r.GIDs}} {
		text := "0 " + dec(ids[0]) + " 1\n"
		if r.Count > 1 {
			text = "0 " + dec(ids[0]) + " " + dec(r.Count) + "\n"
		}
		if err := os.WriteFile(proc+file, []byte(text), 0); err != nil {
			return err
		}
	}
	return nil
}

func dec(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
