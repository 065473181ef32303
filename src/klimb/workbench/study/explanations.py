"""How the numbers of a study are made, for the reader of its page."""

EXPLANATIONS = (
    (
        "Last and best",
        "Last is the score at the moment when the budget is spent. A run goes on to the end of the step that spends "
        "it, further in methods with larger steps, so the score is read off the straight line between the evaluations "
        "before and after. The best one on the way was chosen by its own score and is optimistic: it needs a further "
        "set of problems to be believed. Every run is evaluated on the same held-out problems.",
    ),
    (
        "Interquartile mean",
        "The mean of the middle half of the runs of all tasks and seeds. Its interval comes from drawing the runs "
        "again, with replacement, within each task (Agarwal et al. 2021, arXiv 2108.13264).",
    ),
    (
        "Differences",
        "Two methods are compared run by run of the same seed and problem by problem. The interval and p come from a "
        "t test that counts both as samples: the variance of the mean difference has a part for the seeds and one for "
        "the problems (two-way random effects, Satterthwaite's degrees of freedom). Tasks count equally.",
    ),
    (
        "Many comparisons",
        "Among twenty comparisons of equal methods one will look different at 5 % by chance. Holm's correction keeps "
        "the chance of any such mistake in a table below 5 %; a verdict rests on the corrected p.",
    ),
    (
        "Not distinguishable",
        "The data leave open whether there is a difference. The number of further seeds is what would find the "
        "difference seen here four times out of five, were it the true one; it is as uncertain as that difference.",
    ),
    (
        "P(improvement)",
        "The chance that a run of the one has more than a run of the other, averaged over tasks; 0.5 means neither. "
        "Its interval comes from drawing the runs of both again.",
    ),
    (
        "Lost runs",
        "Runs that failed or did not finish are in no number, and a pair of runs counts only if both finished.",
    ),
)
"""Heading and text."""
