// Threads that wait between calls, for a front without a pool of its own.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <deque>
#include <system_error>

#include "dispatch.h"

namespace bandhess {

// The process's helpers, shared by all calls: at most as many as one call has asked for. Nobody joins them, as a daemon's
// thread may still be within a call while the process ends. A forked process has none of its parent's: it starts its own.
class Helpers {
 public:
  static Helpers& of_process() {
    if (Helpers* helpers = current_) return *helpers;
    Helpers* const made = new Helpers;
    Helpers* other = nullptr;
    if (current_.compare_exchange_strong(other, made)) return *made;
    delete made;
    return *other;
  }

  // Has one of at most `most` helpers run the task as soon as it can. Where the system has no thread to give, nobody does.
  void start(const void* owner, std::function<void()> task, Index most) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (count_ < most && idle_ <= static_cast<Index>(tasks_.size())) add();
      if (count_ == 0) return;
      tasks_.push_back({owner, std::move(task)});
      waiting_ = static_cast<Index>(tasks_.size());
    }
    wake_.notify_one();
  }

  // Forgets the owner's tasks that have not begun.
  void drop(const void* owner) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto owned = [owner](const Task& task) { return task.owner == owner; };
    tasks_.erase(std::remove_if(tasks_.begin(), tasks_.end(), owned), tasks_.end());
    waiting_ = static_cast<Index>(tasks_.size());
  }

 private:
  struct Task {
    const void* owner;
    std::function<void()> run;
  };

  inline static std::atomic<Helpers*> current_{nullptr};
  inline static const int forked_ = pthread_atfork(nullptr, nullptr, [] { current_ = nullptr; });

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> tasks_;
  std::atomic<Index> waiting_{0};  // tasks, for those who look without the mutex
  Index count_ = 0;
  Index idle_ = 0;

  void add() {
    try {
      std::thread([this] { help(); }).detach();
      ++count_;
    } catch (const std::system_error&) {
    }
  }

  void help() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      ++idle_;
      if (tasks_.empty()) {
        lock.unlock();
        awake_until([this] { return waiting_ > 0; });
        lock.lock();
        wake_.wait(lock, [this] { return !tasks_.empty(); });
      }
      --idle_;
      const Task task = std::move(tasks_.front());
      tasks_.pop_front();
      waiting_ = static_cast<Index>(tasks_.size());
      lock.unlock();
      task.run();
      lock.lock();
    }
  }
};

}  // namespace bandhess
