package client

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kiloraft/kiloraft/router"
	"github.com/kiloraft/kiloraft/shard"
)

// contact is how the core finds the cluster, and asks it again where its nodes
// and the meta shard are. One round asks several addresses at once; rounds are
// coalesced and limited in rate, whoever wants one.
type contact struct {
	endpoints []string
	rotation  int             // where the next round starts among the candidates
	asking    map[string]bool // addresses with a question out
	news      bool            // the present round brought an answer
	asked     int             // how many addresses the present round asks
	denied    int             // how many of them denied it
	failures  int             // rounds without an answer, since the last with one
	notBefore time.Duration   // the next round
	again     alarm

	first    string // the endpoint whose cluster was pinned
	opening  []func(error)
	grace    alarm
	graceEnd bool
}

const (
	infoTimeout = 2 * time.Second
	// roundMax is how many addresses one round asks. The first round asks all
	// endpoints, up to firstRoundMax, so that mixed ones are found out.
	roundMax      = 3
	firstRoundMax = 16
	// openGrace is how long the first round may go on after its first answer
	// before the client counts as opened.
	openGrace = 300 * time.Millisecond
	// heardMax bounds the answers that are kept to be shown.
	heardMax = 64
)

var (
	errNotInCluster   = errors.New("the node belongs to no cluster yet")
	errAddressChanged = errors.New("the node has a new address")
	errNoGreeting     = errors.New("the node did not greet in time")
	errOtherNode      = errors.New("the address leads to another node")
)

func (k *contact) init(c *Core) {
	for _, e := range c.cfg.Endpoints {
		if !slices.Contains(k.endpoints, e) {
			k.endpoints = append(k.endpoints, e)
		}
	}
	k.asking = map[string]bool{}
	k.again.owner = alarmFunc(func() { c.round(roundMax) })
	k.grace.owner = alarmFunc(func() { k.graceEnd = true; c.opened() })
	c.book.heard = map[string]string{}
}

// meet begins the first contact.
func (c *Core) meet() { c.round(firstRoundMax) }

// refresh asks the cluster for news, now or as soon as the rate allows.
func (c *Core) refresh() {
	k := &c.contact
	if c.fatal != nil || len(k.asking) > 0 || k.again.set {
		return
	}
	if c.now < k.notBefore {
		c.alarms.put(&k.again, k.notBefore)
		return
	}
	c.round(roundMax)
}

// round asks the next few candidates: endpoints first, then known nodes.
func (c *Core) round(count int) {
	k := &c.contact
	if c.fatal != nil || len(k.asking) > 0 {
		return
	}
	candidates := slices.Clone(k.endpoints)
	for _, n := range c.sortedNodes() {
		if !slices.Contains(candidates, n.address) {
			candidates = append(candidates, n.address)
		}
	}
	if len(candidates) == 0 {
		c.roundEnded()
		return
	}
	k.news = false
	var chosen []string
	for i := range min(count, len(candidates)) {
		chosen = append(chosen, candidates[(k.rotation+i)%len(candidates)])
	}
	k.rotation += len(chosen)
	k.asked, k.denied = len(chosen), 0
	for _, address := range chosen {
		k.asking[address] = true
	}
	for _, address := range chosen {
		c.stats.infos.Add(1)
		c.cfg.Dialer.Info(address, infoTimeout, func(info Info, err error) {
			c.post(func() { c.informed(address, info, err) })
		})
	}
}

// informed takes in one answer, of a round or late.
func (c *Core) informed(address string, info Info, err error) {
	k := &c.contact
	if c.fatal != nil {
		return
	}
	if err == nil {
		err = c.accept(address, info)
	}
	c.hear(address, err)
	if c.fatal != nil {
		c.failAll()
		return
	}
	k.news = k.news || err == nil
	delete(k.asking, address)
	var denied *shard.DeniedError
	if errors.As(err, &denied) {
		k.denied++
	}
	if c.cfg.DeniedIsFinal && !c.ready && k.denied == k.asked {
		c.fatal = err
		c.failAll()
		return
	}
	if len(k.asking) == 0 {
		c.roundEnded()
	}
	c.opened()
}

// roundEnded sets when the next round may be; without first contact it is due then.
func (c *Core) roundEnded() {
	k := &c.contact
	if k.news {
		k.failures = 0
	}
	k.notBefore = c.now + c.jitter(contactBackoff, k.failures)
	if !k.news {
		k.failures++
	}
	if !c.ready && !k.again.set {
		c.alarms.put(&k.again, k.notBefore)
	}
}

// accept pins the cluster, and takes in what a node of it knows.
func (c *Core) accept(address string, info Info) error {
	k := &c.contact
	if info.Cluster.IsZero() || info.Meta.ID != shard.MetaID || !info.Meta.Span.Valid() {
		return errNotInCluster
	}
	if c.cluster.IsZero() {
		c.cluster, k.first = info.Cluster, address
	}
	if info.Cluster != c.cluster {
		e := &MixedClustersError{Endpoint: k.first, Cluster: c.cluster, Other: address, OtherID: info.Cluster}
		switch {
		case k.first == "":
			return fmt.Errorf("the node belongs to cluster %v, wanted is %v", info.Cluster, c.cluster)
		case !k.graceEnd:
			c.fatal = e
		}
		return e
	}
	c.learn(info.Node, address)
	c.learnAll(info.Nodes)
	c.insert(info.Meta)
	if m, ok := info.Meta.ReplicaOn(info.MetaLeader); ok {
		c.setLeader(shard.MetaID, router.Leader{Replica: m.ID, Node: m.Node}, 0)
	}
	c.book.Lock()
	c.book.cluster = c.cluster
	c.book.Unlock()
	if !c.ready {
		c.ready = true
		c.alarms.put(&k.grace, c.now+openGrace)
		for o := c.unrouted.pop(); o != nil; o = c.unrouted.pop() {
			o.place = placeNone
			c.dispatch(o)
		}
	}
	return nil
}

// whenOpened calls done, from a step, once the cluster is known and every
// endpoint was heard, or had its chance; or with the reason why never.
func (c *Core) whenOpened(done func(error)) {
	c.contact.opening = append(c.contact.opening, done)
	c.opened()
}

func (c *Core) opened() {
	k := &c.contact
	if len(k.opening) == 0 || c.fatal == nil && (!c.ready || len(k.asking) > 0 && !k.graceEnd) {
		return
	}
	c.alarms.clear(&k.grace)
	k.graceEnd = true
	for _, done := range k.opening {
		c.queue.Submit(func() { done(c.fatal) })
	}
	k.opening = nil
}

// failAll ends what waits: the core is of no use any more.
func (c *Core) failAll() {
	for c.unrouted.head != nil {
		c.giveUp(c.unrouted.head, c.fatal)
	}
	c.opened()
}

// end forgets everything that is due.
func (k *contact) end(c *Core) {
	c.alarms.clear(&k.again)
	c.alarms.clear(&k.grace)
	c.opened()
}

// hear keeps what was heard of an address, for errors that explain.
func (c *Core) hear(address string, err error) {
	c.book.Lock()
	defer c.book.Unlock()
	if err == nil {
		delete(c.book.heard, address)
	} else if len(c.book.heard) < heardMax {
		c.book.heard[address] = err.Error()
	}
}

// heard says what was heard of each endpoint.
func (c *Core) heard() []string {
	c.book.Lock()
	defer c.book.Unlock()
	var texts []string
	for _, e := range c.contact.endpoints {
		text, ok := c.book.heard[e]
		if !ok {
			text = "no answer"
		}
		texts = append(texts, e+": "+text)
	}
	return texts
}
