// EASY backfilling of one site over SimGrid's s4u actors, for a comparison with the twin: batch LOG PROCESSORS WAITS
//
// LOG: a line "submit run processors requested" for each job, in order of submission, in whole seconds. One actor submits,
// one stands for each running job; whoever acts calls the scheduler. At equal times a submission comes before an end, and a job predicted to end by now
// counts as free, as in the twin. WAITS gets a line for each job. The last line of the output is the processor time in seconds.
#include <simgrid/s4u.hpp>

#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <list>
#include <map>
#include <vector>

namespace sg4 = simgrid::s4u;

struct Job {
  long submit, run, processors, requested, start;
};

static std::vector<Job> jobs;
static std::list<int> waiting;
static std::multimap<long, int> running; // by predicted end
static long used = 0, total = 0;
static sg4::Host* host;

static std::vector<int> started; // whose actors are to be made
static void finish(int number);

static void start(int number, long now) {
  Job& job = jobs[number];
  job.start = now;
  used += job.processors;
  running.emplace(now + job.requested, number);
  started.push_back(number);
}

static void pass(long now) {
  long free = total - used;
  auto first = running.begin();
  for (; first != running.end() && first->first <= now; ++first)
    free += jobs[first->second].processors;
  while (!waiting.empty() && jobs[waiting.front()].processors <= free) {
    const int number = waiting.front();
    waiting.pop_front();
    free -= jobs[number].processors;
    start(number, now);
  }
  if (waiting.empty() || free <= 0)
    return;
  long shadow = now, extra = free;
  const long needed = jobs[waiting.front()].processors;
  for (auto entry = running.upper_bound(now); entry != running.end() && extra < needed;) {
    shadow = entry->first;
    for (; entry != running.end() && entry->first == shadow; ++entry)
      extra += jobs[entry->second].processors;
  }
  extra -= needed;
  for (auto place = std::next(waiting.begin()); place != waiting.end() && free > 0;) {
    Job& job = jobs[*place];
    const bool soon = now + job.requested <= shadow;
    if (job.processors <= free && (soon || job.processors <= extra)) {
      if (!soon)
        extra -= job.processors;
      free -= job.processors;
      const int number = *place;
      place = waiting.erase(place);
      start(number, now);
    } else {
      ++place;
    }
  }
}

// Making an actor lets others act, so it comes after the pass.
static void schedule(long now) {
  pass(now);
  std::vector<int> begun;
  begun.swap(started);
  for (const int number : begun)
    sg4::Actor::create("job", host, [number] {
      sg4::this_actor::sleep_for(jobs[number].run);
      sg4::this_actor::yield(); // let a submission of this moment go first
      finish(number);
    });
}

static void finish(int number) {
  used -= jobs[number].processors;
  auto range = running.equal_range(jobs[number].start + jobs[number].requested);
  for (auto entry = range.first; entry != range.second; ++entry)
    if (entry->second == number) {
      running.erase(entry);
      break;
    }
  schedule(std::lround(sg4::Engine::get_clock()));
}

int main(int argc, char** argv) {
  sg4::Engine engine(&argc, argv);
  if (argc != 4)
    return fprintf(stderr, "batch LOG PROCESSORS WAITS\n"), 64;
  std::ifstream log(argv[1]);
  for (Job job{}; log >> job.submit >> job.run >> job.processors >> job.requested;)
    jobs.push_back(job);
  total = std::stol(argv[2]);
  auto* zone = sg4::create_full_zone("site");
  host = zone->create_host("head", 1e9)->seal();
  zone->seal();
  const clock_t begun = clock();
  sg4::Actor::create("submitter", host, [] {
    for (size_t number = 0; number < jobs.size(); number++) {
      sg4::this_actor::sleep_until(jobs[number].submit);
      waiting.push_back(static_cast<int>(number));
      schedule(jobs[number].submit);
    }
  });
  engine.run();
  const double spent = static_cast<double>(clock() - begun) / CLOCKS_PER_SEC;
  FILE* waits = fopen(argv[3], "w");
  for (const Job& job : jobs)
    fprintf(waits, "%ld\n", job.start - job.submit);
  fclose(waits);
  printf("%.6f\n", spent);
  return 0;
}
