package child

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/naming-go/naming/bench/peer"
)

// ProcessorTime returns the processor time of this process since it began. It returns 0
// where the time is not known.
func ProcessorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// connections counts the process's TCP connections to the servers.
func connections(s peer.Servers) int {
	ports := make(map[string]bool)
	for _, addr := range append([]string{s.Consul}, s.Etcd...) {
		if _, port, err := net.SplitHostPort(addr); err == nil {
			if n, err := strconv.Atoi(port); err == nil {
				ports[fmt.Sprintf("%04X", n)] = true
			}
		}
	}
	own := make(map[string]bool) // inodes of sockets
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			if inode, ok := strings.CutPrefix(to, "socket:["); ok {
				own[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	n := 0
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			const remote, state, inode, established = 2, 3, 9, "01"
			col := strings.Fields(lines.Text())
			if len(col) > inode && col[state] == established && own[col[inode]] {
				if _, port, ok := strings.Cut(col[remote], ":"); ok && ports[port] {
					n++
				}
			}
		}
		f.Close()
	}
	return n
}
