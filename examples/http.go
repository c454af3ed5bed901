// An HTTP/1.1 worker that can be replaced at any moment without a failed request. It takes the
// sockets it is given (LISTEN_FDS), says when it is ready (NOTIFY_SOCKET), and on SIGTERM stops as
// a lame duck: it accepts no more, answers what it accepted, and says goodbye to kept-alive
// clients in an answer instead of hanging up on them, as a plain Server.Shutdown would.
//
//	go build http.go
//	shepherd run -n 4 -p 8000 -- ./http     four of them, sharing one socket
//	systemd-socket-activate -l 8000 ./http  one, started by the first connection
//	./http [ADDRESS:PORT]                   one, with a socket of its own (127.0.0.1:8000)
//
// It reads the variables by the rules of sd_listen_fds(3), and where they break one it says so and
// exits with 2: a server that opened a socket of its own instead would look well and get no
// connections.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	firstFD        = 3                // SD_LISTEN_FDS_START
	socketsMax     = 1024             // More than this are refused.
	headBytesMax   = 8 * 1024         // A head that is much longer is refused.
	exchangeMax    = 10 * time.Second // For a client to finish a head.
	idleMax        = time.Minute      // How long a connection may be silent.
	slowMax        = time.Minute      // The longest that /slow takes.
	pidfsMagic     = 0x50494446       // PID_FS_MAGIC of linux/magic.h, Linux 6.9
	sysPidfdOpen   = 434              // The same on all architectures that Go knows.
	exitBrokenRule = 2
)

var (
	stopping    atomic.Bool
	accepting   sync.WaitGroup // Listeners.
	connections sync.WaitGroup
)

func main() {
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)

	listeners := givenSockets()
	if len(listeners) == 0 {
		listeners = append(listeners, ownSocket())
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(answer),
		ReadHeaderTimeout: exchangeMax,
		WriteTimeout:      slowMax + exchangeMax,
		IdleTimeout:       idleMax,
		MaxHeaderBytes:    headBytesMax,
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				connections.Add(1)
			case http.StateClosed:
				connections.Done()
			}
		},
	}
	accepting.Add(len(listeners))
	for _, listener := range listeners {
		go func(listener net.Listener) {
			defer accepting.Done()
			if err := server.Serve(listener); !stopping.Load() {
				die(1, "cannot accept: %v", err)
			}
		}(listener)
	}
	notify(fmt.Sprintf("READY=1\nSTATUS=serving on %d socket(s)", len(listeners)))

	<-stop
	stopping.Store(true)
	go func() {
		<-stop
		os.Exit(1)
	}()
	notify("STOPPING=1\nSTATUS=finishing what was accepted")
	// This closes our copies only: other workers go on accepting from the same sockets.
	for _, listener := range listeners {
		listener.Close()
	}
	allGone := make(chan struct{})
	go func() {
		accepting.Wait()
		connections.Wait()
		close(allGone)
	}()
	// Shutdown hangs up on idle connections, and a request may be on its way on any of them. So it
	// comes only after they had time for an answer that says goodbye.
	lameDuck, err := strconv.Atoi(os.Getenv("LAME_DUCK_MS"))
	if err != nil {
		lameDuck = 1000
	}
	select {
	case <-allGone:
	case <-time.After(time.Duration(lameDuck) * time.Millisecond):
	}
	// It gives connections that had no request yet 5 seconds more, and those being answered all
	// they need.
	server.Shutdown(context.Background())
}

func die(code int, format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "http: "+format+"\n", arguments...)
	os.Exit(code)
}

// givenSockets returns the sockets that were handed to this process as descriptors from 3 on.
func givenSockets() []net.Listener {
	pid, hasPID := os.LookupEnv("LISTEN_PID")
	count, hasCount := os.LookupEnv("LISTEN_FDS")
	names, hasNames := os.LookupEnv("LISTEN_FDNAMES")
	pidfdID, hasPidfdID := os.LookupEnv("LISTEN_PIDFDID")
	if !hasPID && !hasCount {
		return nil
	}
	if !hasPID || !hasCount {
		die(exitBrokenRule, "LISTEN_PID and LISTEN_FDS must both be set")
	}

	// Both say for whom the sockets are. A pid can be used again; the other number never is.
	if number, ok := parseNumber(pid, 1<<31-1); !ok || number != uint64(os.Getpid()) {
		die(exitBrokenRule, "LISTEN_PID is `%s`, but we are %d: a program between us and the "+
			"supervisor keeps the sockets; end it with `exec`", pid, os.Getpid())
	}
	if ownID := ownPidfdID(); hasPidfdID && ownID != 0 {
		if number, ok := parseNumber(pidfdID, 1<<64-1); !ok || number != ownID {
			die(exitBrokenRule, "LISTEN_PIDFDID is `%s`, but ours is %d: the sockets are for "+
				"another process that had our pid", pidfdID, ownID)
		}
	}

	sockets, ok := parseNumber(count, socketsMax)
	if !ok || sockets == 0 {
		die(exitBrokenRule, "LISTEN_FDS is `%s`, not a number from 1 to %d", count, socketsMax)
	}
	if namesCount := strings.Count(names, ":") + 1; hasNames && uint64(namesCount) != sockets {
		die(exitBrokenRule, "LISTEN_FDNAMES `%s` has %d name(s) for %d socket(s)", names, namesCount,
			sockets)
	}
	// All are looked at before the first is copied: a copy could get the number of one that is
	// missing.
	for fd := firstFD; fd < firstFD+int(sockets); fd++ {
		listens, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		if err != nil || listens == 0 {
			die(exitBrokenRule, "descriptor %d is not a listening socket", fd)
		}
		// They come without it, and are not meant for programs that we may start.
		syscall.CloseOnExec(fd)
	}
	var listeners []net.Listener
	for fd := firstFD; fd < firstFD+int(sockets); fd++ {
		file := os.NewFile(uintptr(fd), "")
		listener, err := net.FileListener(file) // This is a copy, close-on-exec as well.
		if err != nil {
			die(1, "descriptor %d: %v", fd, err)
		}
		file.Close()
		listeners = append(listeners, listener)
	}
	if !hasNames {
		names = "nothing"
	}
	fmt.Fprintf(os.Stderr, "http: was given %d socket(s), named %s\n", sockets, names)
	// Nor are these variables.
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		os.Unsetenv(name)
	}
	return listeners
}

// parseNumber reads a decimal number as the protocol writes it: digits alone.
func parseNumber(text string, max uint64) (uint64, bool) {
	number, err := strconv.ParseUint(text, 10, 64)
	return number, err == nil && number <= max
}

// ownPidfdID returns the inode number of a pidfd of this process, which no other process ever has,
// or 0 where the kernel does not number them (before Linux 6.9).
func ownPidfdID() uint64 {
	pidfd, _, errno := syscall.Syscall(sysPidfdOpen, uintptr(os.Getpid()), 0, 0)
	if errno != 0 {
		return 0
	}
	defer syscall.Close(int(pidfd))
	var filesystem syscall.Statfs_t
	var file syscall.Stat_t
	if syscall.Fstatfs(int(pidfd), &filesystem) != nil || filesystem.Type != pidfsMagic ||
		syscall.Fstat(int(pidfd), &file) != nil {
		return 0
	}
	return file.Ino
}

func ownSocket() net.Listener {
	address := "127.0.0.1:8000"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		die(1, "%v", err)
	}
	return listener
}

// notify tells the service manager, if there is one. That it does not hear us must not stop us.
func notify(message string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	// A leading @ stands for the zero byte of an abstract address, for Go as well.
	manager, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err == nil {
		_, err = manager.Write([]byte(message))
		manager.Close()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "http: cannot notify: %v\n", err)
	}
}

func answer(response http.ResponseWriter, request *http.Request) {
	// Bodies are not read, so what follows one could not be told from it.
	if request.ContentLength != 0 {
		response.Header().Set("Connection", "close")
	}
	path := request.URL.Path
	if request.Method != "GET" || (path != "/" && path != "/slow") {
		send(response, http.StatusNotFound, "")
		return
	}
	if path == "/slow" {
		query := request.URL.RawQuery
		ms, ok := parseNumber(strings.TrimPrefix(query, "ms="), 999_999_999)
		if !ok || !strings.HasPrefix(query, "ms=") {
			response.Header().Set("Connection", "close")
			send(response, http.StatusBadRequest, "")
			return
		}
		wait := time.Duration(ms) * time.Millisecond
		if wait > slowMax {
			wait = slowMax
		}
		time.Sleep(wait)
	}
	send(response, http.StatusOK, fmt.Sprintf("%s %d %s %s\n", variable("VERSION", "dev"),
		os.Getpid(), variable("SHEPHERD_SLOT", "-"), variable("SHEPHERD_GENERATION", "-")))
}

func send(response http.ResponseWriter, status int, body string) {
	if stopping.Load() {
		response.Header().Set("Connection", "close")
	}
	response.Header().Set("Content-Type", "text/plain")
	response.Header().Set("Content-Length", strconv.Itoa(len(body)))
	response.WriteHeader(status)
	fmt.Fprint(response, body)
}

func variable(name, otherwise string) string {
	if value, found := os.LookupEnv(name); found {
		return value
	}
	return otherwise
}
