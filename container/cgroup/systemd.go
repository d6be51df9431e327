package cgroup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// busTime is how long systemd may take to make a scope.
const busTime = 30 * time.Second

// hasSystemd tells whether systemd is the manager of this host.
func hasSystemd() bool {
	st, err := os.Lstat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// userBus says why the systemd of this user cannot be reached; nil if it can.
func userBus() error {
	dir, address := os.Getenv("XDG_RUNTIME_DIR"), os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	if dir == "" && address == "" {
		return errors.New("XDG_RUNTIME_DIR and DBUS_SESSION_BUS_ADDRESS are not set")
	}
	ctx, cancel := context.WithTimeout(context.Background(), busTime)
	defer cancel()
	conn, err := connectBus(ctx, false)
	if err != nil {
		return err
	}
	defer conn.Close()
	// A bus without a systemd behind it, as dbus-run-session starts, is none.
	if _, err := conn.GetManagerProperty("Version"); err != nil {
		return err
	}
	return nil
}

func connectBus(ctx context.Context, system bool) (*systemd.Conn, error) {
	if system {
		return systemd.NewSystemConnectionContext(ctx)
	}
	if os.Getenv("DBUS_SESSION_BUS_ADDRESS") == "" {
		// Without an address the library would start a bus of its own.
		path := os.Getenv("XDG_RUNTIME_DIR") + "/bus"
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
		return systemd.NewConnection(func() (*dbus.Conn, error) {
			return dbus.Connect("unix:path="+dbus.EscapeBusAddressValue(path), dbus.WithContext(ctx))
		})
	}
	return systemd.NewUserConnectionContext(ctx)
}

// properties are all that systemd is told.
//
// Security: no word of a limit gets here. The limits are written to the kernel's
// files below the scope, so that no value can become a property of a unit.
func properties(system bool) []systemd.Property {
	slice := "user.slice"
	if system {
		slice = "system.slice"
	}
	return []systemd.Property{
		systemd.PropDescription("Singularity container of process " + strconv.Itoa(os.Getpid())),
		systemd.PropSlice(slice),
		systemd.PropPids(uint32(os.Getpid())),
		{Name: "Delegate", Value: dbus.MakeVariant(true)},
		{Name: "CollectMode", Value: dbus.MakeVariant("inactive-or-failed")},
	}
}

// startScope makes the scope name with this process in it.
func startScope(ctx context.Context, name string, system bool) error {
	fail := func(err error) error {
		cure := "log in again, or see what systemd says: journalctl --user -n 20"
		if system {
			cure = "set \"systemd cgroups = no\" in singularity.conf if systemd does not manage this host"
		}
		return &MissingError{Missing: []string{fmt.Sprintf("systemd does not make the scope %s: %v", name, err)}, Cure: cure}
	}
	conn, err := connectBus(ctx, system)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	done := make(chan string, 1)
	if _, err := conn.StartTransientUnitContext(ctx, name, "fail", properties(system), done); err != nil {
		return fail(err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fail(errors.New("the job ended as " + strings.ToLower(result)))
		}
		return nil
	case <-ctx.Done():
		return fail(ctx.Err())
	}
}
