package shard

import (
	"context"
	"math/rand/v2" // want steps "math/rand/v2"
	"net"          // want steps "net"
	"os"           // want steps "os"
	"sync"
	wall "time"
)

func steps(ctx context.Context, c chan int) {
	go func() {}() // want steps "no goroutine"
	select {       // want steps "select"
	case <-c:
	case <-wall.After(1): // want steps "time.After"
	}
	_ = wall.Now() // want steps "time.Now"
	_ = rand.Uint64()
	_ = net.IPv4len
	_ = os.Args
	start := wall.Time{}
	_ = wall.Since(start)              // want steps "time.Since"
	wall.Sleep(wall.Second)            // want steps "time.Sleep"
	_, _ = wall.NewTimer(1), later     // want steps "time.NewTimer"
	_ = wall.NewTicker(1)              // want steps "time.NewTicker"
	_, _ = context.WithTimeout(ctx, 1) // want steps "context.WithTimeout"
	new(sync.WaitGroup).Go(func() {})  // want steps "WaitGroup"
	d := 3 * wall.Second               // a duration is only a number
	_ = d.Seconds()
}

var later = wall.AfterFunc // want steps "time.AfterFunc"

type now struct{}

func (now) Now() {}

func ownNow() { now{}.Now() }
