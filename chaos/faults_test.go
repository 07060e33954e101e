package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// plans draws some plans from a seed, in words.
func plans(seed uint64, n int) (all []string) {
	d := deck{faults: slices.Concat(processFaults, networkFaults), rnd: rand.New(rand.NewPCG(seed, 1))}
	for range n {
		p := d.plan()
		all = append(all, fmt.Sprint(p.kind, p.lasts, p.pause, p.overlap, p.seed))
	}
	return all
}

func TestSeedDecidesWhatIsInflicted(t *testing.T) {
	if !slices.Equal(plans(7, 50), plans(7, 50)) {
		t.Error("one seed gives two plans")
	}
	if slices.Equal(plans(7, 50), plans(8, 50)) {
		t.Error("two seeds give one plan")
	}
}

func TestEveryKindIsDealtBeforeOneIsDealtAgain(t *testing.T) {
	all := slices.Concat(processFaults, networkFaults)
	d := deck{faults: all, rnd: rand.New(rand.NewPCG(3, 1))}
	for range 3 {
		dealt := map[string]bool{}
		for range all {
			p := d.plan()
			if dealt[p.kind] {
				t.Errorf("%s is dealt twice", p.kind)
			}
			dealt[p.kind] = true
			if p.lasts < p.least || p.lasts > p.most {
				t.Errorf("%s lasts %v", p.kind, p.lasts)
			}
		}
	}
}

// bystander is a fire without processes.
func bystander(t *testing.T, nodes int) *fire {
	v := &verdict{say: t.Logf, stop: func() {}}
	c := &cluster{board: newSwitchboard(nodes, rand.New(rand.NewPCG(1, 1))), verdict: v}
	t.Cleanup(c.board.close)
	for i := range nodes {
		c.nodes = append(c.nodes, &node{number: i + 1})
	}
	return &fire{cluster: c, ctx: context.Background(), say: t.Logf, outages: newOutages(1, time.Now(), func(int, time.Duration) {})}
}

// Whatever the faults of the switchboard do is undone by their healing, in any order.
func TestNetworkFaultsAreHealed(t *testing.T) {
	f := bystander(t, 5)
	for seed := range uint64(50) {
		var heals []func() error
		for _, kind := range networkFaults {
			if kind.cell {
				continue
			}
			before := fmt.Sprint(f.board.ways)
			what, heal, err := kind.inflict(f, rand.New(rand.NewPCG(seed, 3)))
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(f.board.ways) == before {
				t.Errorf("%s (%s) changes nothing", kind.kind, what)
			}
			heals = append(heals, heal)
		}
		for _, heal := range heals {
			if err := heal(); err != nil {
				t.Fatal(err)
			}
		}
		for _, row := range f.board.ways {
			for _, w := range row {
				if w.cuts != 0 || w.delay != 0 || w.loss > 1e-9 || w.loss < -1e-9 {
					t.Fatalf("seed %d leaves %+v", seed, f.board.ways)
				}
			}
		}
	}
}

// A minority is cut off, never a majority of the nodes; a bridge leaves two groups.
func TestPartitionsLeaveAMajority(t *testing.T) {
	for nodes := nodesMin; nodes <= nodesMax; nodes++ {
		f := bystander(t, nodes)
		for seed := range uint64(100) {
			few, many := f.split(rand.New(rand.NewPCG(seed, 3)))
			if got := without(many, outside); len(few) == 0 || len(few) >= len(got) || len(few)+len(got) != nodes {
				t.Fatalf("%v | %v of %d nodes", few, many, nodes)
			}
		}
	}
}

func TestNoNodeIsTakenTwice(t *testing.T) {
	f := bystander(t, 3)
	rnd := rand.New(rand.NewPCG(1, 1))
	first, err := f.take(rnd, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.take(rnd, 2, nil); !errors.Is(err, errBusy) {
		t.Errorf("two of one node that is left: %v", err)
	}
	if second, err := f.take(rnd, 1, nil); err != nil || slices.Contains(first, second[0]) {
		t.Errorf("%v after %v, %v", second, first, err)
	}
	giveBack(first)
	if again, err := f.take(rnd, 2, nil); err != nil || !slices.Equal(again, first) {
		t.Errorf("%v, %v; want %v", again, err, first)
	}
}

// A fault that cannot be healed fails the run, and so does one that cannot be inflicted; one for which
// nobody is left does not.
func TestFaultsThatGoWrong(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		inflict, heal error
		want          string
	}{{nil, nil, ""}, {errBusy, nil, ""}, {broken, nil, "test: broken"}, {nil, broken, "test cannot be healed: broken"}} {
		f := bystander(t, 3)
		f.begin(plan{fault: &fault{kind: "test", inflict: func(*fire, *rand.Rand) (string, func() error, error) {
			return "", func() error { return c.heal }, c.inflict
		}}})()
		if got := strings.Join(f.verdict.wrong, ";"); got != c.want {
			t.Errorf("inflicted %v, healed %v: %q", c.inflict, c.heal, got)
		}
	}
}
