package wire

import (
	"runtime"
	"time"
)

const (
	// watchdogTick is how often the watchdog looks, and so how long a request can
	// keep others waiting: the shorter time for as many looks as watchdogAlarm says
	// after a request did. A look wakes a thread, and what answers requests pays
	// for that.
	watchdogTick      = 5 * time.Millisecond
	watchdogTickAlarm = time.Millisecond
	watchdogAlarm     = 1000
	// watchdogPatience is how many ticks without a request send the watchdog to
	// sleep; watchdogBusy is how many without an idle worker call for one more.
	watchdogPatience = 20
	watchdogBusy     = 20
)

// wake ends the watchdog's sleep.
func (p *workers) wake() {
	p.asleep.Store(false)
	select {
	case p.rouse <- struct{}{}:
	default:
	}
}

// watch is the watchdog: it starts workers where those there are do not suffice.
func (p *workers) watch() {
	tick := time.NewTimer(watchdogTick)
	defer tick.Stop()
	most := int32(max(runtime.NumCPU()/2, 1))
	quiet, busy, alarm := 0, 0, 0
	for {
		before := p.begun.Load()
		if alarm > 0 {
			alarm--
			tick.Reset(watchdogTickAlarm)
		} else {
			tick.Reset(watchdogTick)
		}
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		p.ticks.Add(1)
		idle, progress := p.idle.Load(), p.begun.Load() != before
		switch {
		case idle > 0 && !progress:
			quiet++
		case idle == 0 && !progress:
			quiet, alarm = 0, watchdogAlarm
			p.start() // all are held up
		default:
			quiet = 0
		}
		if idle == 0 {
			busy++
		} else {
			busy = 0
		}
		if busy >= watchdogBusy && p.running.Load() < most {
			busy = 0
			p.start()
		}
		if p.running.Load() > crowdSize {
			p.background.widen(true)
		}
		if quiet >= watchdogPatience {
			quiet = 0
			if p.running.Load() <= crowdSize {
				p.background.widen(false)
			}
			p.asleep.Store(true)
			// A request that began before it could see that the watchdog sleeps
			// is held up for a moment at the most: it is looked at once more.
			if p.idle.Load() > 0 {
				select {
				case <-p.stop:
					return
				case <-p.rouse:
				}
			}
			p.asleep.Store(false)
		}
	}
}
