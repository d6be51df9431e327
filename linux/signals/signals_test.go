package signals

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNothingIsLost sends signals while no one reads and other threads run, the
// moment in which the runtime's own handler would take them.
func TestNothingIsLost(t *testing.T) {
	if os.Getenv("SIGNALS_TEST_CHILD") == "" {
		// The source belongs to a whole process, so it gets one.
		c := exec.Command("/proc/self/exe", "-test.run=^TestNothingIsLost$", "-test.v")
		c.Env = append(os.Environ(), "SIGNALS_TEST_CHILD=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	// A test that was started by nohup or in the background ignores some.
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGCHLD} {
		Default(sig)
	}
	s, err := Open(Unblocked)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("needs amd64")
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for x := 0; ; x++ { // keeps a thread busy
		}
	}()
	// A busy machine may be slow, but not with a single signal.
	const patience = 30 * time.Second
	late := time.AfterFunc(patience, func() { panic("a signal was lost") })
	for i := range 1000 {
		late.Reset(patience)
		for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT} {
			if err := unix.Kill(os.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			if got, kernel := s.Read(); got != sig || kernel {
				t.Fatalf("round %d: got %v (from the kernel: %v), want %v", i, got, kernel, sig)
			}
		}
	}
	for range 50 {
		late.Reset(patience)
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		if err != nil {
			t.Skip("needs /bin/true")
		}
		if got, kernel := s.Read(); got != unix.SIGCHLD || !kernel {
			t.Fatalf("got %v, %v, want SIGCHLD", got, kernel)
		}
		p.Wait()
	}
}
