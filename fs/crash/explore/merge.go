package explore

import (
	"fmt"
	"slices"
)

// Merge puts the reports of all shards of one search together.
func Merge(reports []*Report) (*Report, error) {
	merged := *reports[0]
	merged.Shard, merged.Findings = "", nil
	merged.Checked, merged.Failures, merged.Seconds = 0, 0, 0
	seen := make(map[string]bool)
	shards := 0
	for _, r := range reports {
		switch {
		case r.Shard == "":
			return nil, fmt.Errorf("a report is of no shard: there is nothing to put together")
		case seen[r.Shard]:
			return nil, fmt.Errorf("shard %s is there twice", r.Shard)
		case r.Model != merged.Model || r.Seed != merged.Seed || r.Torn != merged.Torn || r.Check != merged.Check || r.Operations != merged.Operations:
			return nil, fmt.Errorf("shards %s and %s are of different searches", reports[0].Shard, r.Shard)
		}
		seen[r.Shard] = true
		var n, of int
		if _, err := fmt.Sscanf(r.Shard, "%d/%d", &n, &of); err != nil {
			return nil, fmt.Errorf("shard %q: %w", r.Shard, err)
		}
		shards = of
		merged.Checked += r.Checked
		merged.Failures += r.Failures
		merged.Seconds = max(merged.Seconds, r.Seconds)
		merged.Complete = merged.Complete && r.Complete
		merged.States, merged.Distinct = max(merged.States, r.States), max(merged.Distinct, r.Distinct)
		for _, f := range r.Findings {
			if same := slices.IndexFunc(merged.Findings, f.isLike); same >= 0 {
				merged.Findings[same].States += f.States
				continue
			}
			merged.Findings = append(merged.Findings, f)
		}
	}
	for n := range shards {
		if !seen[fmt.Sprintf("%d/%d", n+1, shards)] {
			return nil, fmt.Errorf("shard %d/%d is missing", n+1, shards)
		}
	}
	slices.SortStableFunc(merged.Findings, func(a, b Finding) int { return len(a.Lost) - len(b.Lost) })
	for i := range merged.Findings {
		merged.Findings[i].ID = i + 1
	}
	return &merged, nil
}
